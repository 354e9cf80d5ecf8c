"""Latency at a fixed arrival rate, counted from when a request was due: five limits in Redis."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from mxweir_bench import load, rediscost, servers
from mxweir_bench.compare import spread
from mxweir_bench.load import Run
from mxweir_bench.rates import KEYS
from mxweir_bench.report import Part, at_most, disturbances, table
from mxweir_bench.shared import check_quiet, cost_table
from mxweir_bench.tools import Tools
from mxweir_ops.lab.redis import Redis

RATE, CONNECTIONS = 5000, 64
WANTED_MS = 3.0


def part(tools: Tools, directory: Path, seconds: float, rounds: int) -> Part:
    """The no-op server, mxweir that counts by itself, and mxweir that counts in Redis."""
    home = directory / "open"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(home))
        counted = servers.limits(rate=servers.LASTING)
        alone, shared = (
            stack.enter_context(servers.mxweir(name, home, counted=counted, redis=url))
            for name, url in (("mxweir", ""), ("mxweir with Redis", redis.unix_url))
        )
        compared = [stack.enter_context(servers.noop(tools.noop, home)), alone, shared]
        for server in compared:
            load.run(tools.policyload, server, ["--requests", str(5 * KEYS), "--keys", str(KEYS)])
        pace = ["--rate", str(RATE), "--conns", str(CONNECTIONS), "--seconds", str(seconds)]
        runs: dict[str, list[Run]] = {server.name: [] for server in compared}
        costs = []
        for _ in range(rounds):
            for server in compared:
                before = rediscost.count(redis)
                run = load.run(tools.policyload, server, [*pace, "--keys", str(KEYS)])
                runs[server.name].append(run)
                if server is shared:
                    costs.append(rediscost.cost(before, rediscost.count(redis), run.requests))
        check_quiet(shared)
    others = [run.others_cpu for server in (compared[0], alone) for run in runs[server.name]]
    text = f"""\
## Latency at {RATE:,} requests a second

Open loop: a request is due every {1e6 / RATE:g} µs whatever became of those before, and its latency
counts from then; {CONNECTIONS} connections, {KEYS:,} senders, recipients and clients, {rounds} rounds of
{seconds:g} s, loopback TCP, five limits, Redis over a unix socket. Medians over the rounds.
{disturbances(others)}

{_table(runs)}

What a question costs Redis at this rate:

{cost_table({shared.name: costs})}"""
    p99 = spread([run.p99_ms for run in runs[shared.name]]).median
    wanted = at_most(f"p99 at {RATE:,} requests/s, limits in Redis", p99, WANTED_MS, "ms")
    return Part({name: list(map(asdict, of)) for name, of in runs.items()}, text, [wanted])


def _table(runs: dict[str, list[Run]]) -> str:
    figures = ("p50_ms", "p99_ms", "p999_ms", "max_ms")

    def row(name: str) -> tuple[str, ...]:
        medians = [spread([getattr(run, figure) for run in runs[name]]).median for figure in figures]
        cpu = spread([run.server_cpu for run in runs[name]]).median
        return (name, *(f"{median:.2f}" for median in medians), f"{cpu:.0%}")

    return table(("server", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", "server CPU"), map(row, runs))
