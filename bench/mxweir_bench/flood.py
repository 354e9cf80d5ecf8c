"""What a flood from one sender costs Redis, once its limit has refused: next to nothing."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from mxweir_bench import load, rediscost, servers
from mxweir_bench.load import Run
from mxweir_bench.report import Part, at_least, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.redis import Redis

WANTED = 0.95

_RATE, _SECONDS = "100/minute", 3.0


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of sender: the run, and the calls and CPU seconds that it cost Redis."""

    sender: str
    run: Run
    calls: int
    redis_cpu: float

    @property
    def calls_a_thousand(self) -> float:
        """Calls of the script for a thousand requests."""
        return 1000 * self.calls / self.run.requests


def part(tools: Tools, directory: Path) -> Part:
    """The same flood with room in all limits, and over the sender's."""
    home = directory / "flood"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(home))
        kinds = {
            "within all limits": servers.limits(),
            "over its own limit": servers.limits(sender=_RATE),
        }
        rows = [
            _flood(tools.policyload, server, redis)
            for server in (
                stack.enter_context(servers.mxweir(name, home, redis=redis.unix_url, counted=limits))
                for name, limits in kinds.items()
            )
        ]
    fewer = 1 - rows[1].calls_a_thousand / rows[0].calls_a_thousand
    text = f"""\
## A flood from one sender

Five limits in Redis; one sender, recipient and client, 64 connections, {_SECONDS:g} s; the limit that it
is over is {_RATE}.

{_table(rows)}"""
    return Part([asdict(row) for row in rows], text, [at_least("flood: fewer calls of Redis", fewer, WANTED)])


def _flood(policyload: Path, server: Server, redis: Redis) -> Row:
    before = rediscost.count(redis)
    options = ["--conns", "64", "--keys", "1", "--seconds", str(_SECONDS)]
    run = load.run(policyload, server, options, ("DUNNO", "550"))
    after = rediscost.count(redis)
    return Row(server.name, run, after.calls - before.calls, after.cpu_seconds - before.cpu_seconds)


def _table(rows: Iterable[Row]) -> str:
    return table(
        ("the sender is", "requests/s", "script calls", "calls for 1,000 requests", "Redis CPU"),
        (
            (
                row.sender,
                f"{row.run.rps:,.0f}",
                f"{row.calls:,}",
                f"{row.calls_a_thousand:.2f}",
                f"{row.redis_cpu / _SECONDS:.1%}",
            )
            for row in rows
        ),
    )
