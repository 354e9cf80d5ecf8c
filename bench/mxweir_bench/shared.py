"""Five limits in Redis: requests a second beside the no-op server, and what a question costs Redis."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from mxweir_bench import load, rediscost, servers
from mxweir_bench.compare import ratio, spread
from mxweir_bench.load import InvalidRunError, Run
from mxweir_bench.rates import KEYS
from mxweir_bench.rediscost import Cost
from mxweir_bench.report import Part, at_least, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.redis import Redis

CONNECTIONS = 64
WANTED = 0.2


def part(tools: Tools, directory: Path, seconds: float, rounds: int, *, unix: bool) -> Part:
    """The no-op server, mxweir that counts by itself, and mxweir that counts in Redis."""
    home = directory / "shared"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(home))
        noop = stack.enter_context(servers.noop(tools.noop, home, unix=unix))
        counted = servers.limits(rate=servers.LASTING)
        alone = stack.enter_context(servers.mxweir("mxweir", home, unix=unix, counted=counted))
        shared = stack.enter_context(
            servers.mxweir("mxweir with Redis", home, unix=unix, counted=counted, redis=redis.unix_url)
        )
        for server in (alone, shared):
            servers.check_work(server, *load.requests(tools.policyload, 2, KEYS))
        runs, costs = measure(tools.policyload, [noop, alone, shared], redis, seconds, rounds)
    of_noop = _ratio(runs, shared.name, noop.name)
    text = f"""\
## Requests a second with limits in Redis

Five limits, one worker, Redis over a unix socket. Closed loop at {CONNECTIONS} connections, {KEYS:,}
senders, recipients and clients, {rounds} rounds of {seconds:g} s,
{"unix sockets" if unix else "loopback TCP"}. Medians; ratios within a round, with the middle half of the
rounds.
{disturbances([run.others_cpu for name in (noop.name, alone.name) for run in runs[name]])}

{_table(runs, noop.name, alone.name)}

What a question costs Redis:

{cost_table({shared.name: costs})}"""
    figures = {"runs": {name: list(map(asdict, of)) for name, of in runs.items()}, "redis": _asdicts(costs)}
    wanted = at_least(f"{CONNECTIONS} connections, limits in Redis: rate, of noop", of_noop, WANTED)
    return Part(figures, text, [wanted])


def measure(
    policyload: Path, compared: Sequence[Server], redis: Redis, seconds: float, rounds: int
) -> tuple[dict[str, list[Run]], list[Cost]]:
    """Load the servers in turn; the last is the one that asks Redis.

    InvalidRunError when it did not, or complained.
    """
    for server in compared:
        load.run(policyload, server, ["--conns", "64", "--requests", str(5 * KEYS), "--keys", str(KEYS)])
    options = ["--conns", str(CONNECTIONS), "--seconds", str(seconds), "--keys", str(KEYS)]
    runs: dict[str, list[Run]] = {server.name: [] for server in compared}
    costs = []
    for _ in range(rounds):
        for server in compared:
            before = rediscost.count(redis)
            runs[server.name].append(run := load.run(policyload, server, options))
            if server is compared[-1]:
                costs.append(rediscost.cost(before, rediscost.count(redis), run.requests))
    check_quiet(compared[-1])
    return runs, costs


def check_quiet(server: Server) -> None:
    """InvalidRunError when it logged anything: that Redis did not answer, say."""
    if complaints := server.log.read_text().splitlines():
        raise InvalidRunError(f"{server.name} complains: {complaints[0]}")


def cost_table(costs: dict[str, Sequence[Cost]]) -> str:
    """What a question costs Redis, by whatever the rows are named after; medians."""
    rows = []
    for name, of in costs.items():
        cpu = spread([cost.cpu_us for cost in of]).median
        rows.append(
            (
                name,
                f"{spread([cost.questions_a_call for cost in of]).median:.1f}",
                f"{spread([cost.script_us for cost in of]).median:.1f}",
                f"{cpu:.1f}",
                f"{1e6 / cpu:,.0f}",
            )
        )
    head = ("", "questions a call", "µs in the script", "µs of its process", "questions/s that fill a core")
    return table(head, rows)


def _ratio(runs: dict[str, list[Run]], name: str, base: str) -> float:
    return ratio([run.rps for run in runs[name]], [run.rps for run in runs[base]]).median


def _table(runs: dict[str, list[Run]], noop: str, alone: str) -> str:
    def row(name: str) -> tuple[str, ...]:
        def median(figure: str) -> float:
            return spread([getattr(run, figure) for run in runs[name]]).median

        of = ratio([run.rps for run in runs[name]], [run.rps for run in runs[noop]])
        return (
            name,
            f"{median('rps'):,.0f}",
            f"{of.median:.1%} ({of.low:.1%} to {of.high:.1%})",
            f"{_ratio(runs, name, alone):.0%}",
            f"{median('p50_ms'):.2f}",
            f"{median('p99_ms'):.2f}",
            f"{median('server_cpu'):.0%}",
            f"{median('generator_cpu'):.0%}",
        )

    head = ("server", "requests/s", "of noop", "of mxweir", "p50 ms", "p99 ms", "server CPU", "generator CPU")
    return table(head, map(row, runs))


def _asdicts(costs: Sequence[Cost]) -> list[dict[str, float]]:
    return [asdict(cost) for cost in costs]
