"""Requests a second and latency: the servers take turns, round by round."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from mxweir_bench import load, servers
from mxweir_bench.compare import Spread, ratio, spread
from mxweir_bench.load import InvalidRunError, Run
from mxweir_bench.report import Part, Target, at_least, at_most, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.process import wait_until

KEYS = 10_000
"""Senders, recipients and clients that the load generator draws from."""

WANTED = {64: 0.28, 256: 0.35}
"""Connections, and the share of the no-op server's rate to be reached there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One server at one number of connections; `of_noop` is its rate as a share of the no-op server's."""

    server: str
    connections: int
    rounds: tuple[Run, ...]
    of_noop: Spread

    def median(self, figure: str) -> float:
        """The median of one of Run's figures."""
        return spread([getattr(run, figure) for run in self.rounds]).median


def part(
    tools: Tools, directory: Path, connections: Sequence[int], seconds: float, rounds: int, *, unix: bool
) -> Part:
    """The no-op server, mxweir that logs warnings, and mxweir with a log line a decision."""
    with ExitStack() as stack:
        noop = stack.enter_context(servers.noop(tools.noop, directory, unix=unix))
        quiet = stack.enter_context(servers.mxweir("mxweir", directory, unix=unix))
        logging = stack.enter_context(servers.mxweir("mxweir with log", directory, level="info", unix=unix))
        for server in (quiet, logging):
            servers.check_work(server, *load.requests(tools.policyload, 2, KEYS))
        rows = measure(tools.policyload, [noop, quiet, logging], connections, seconds, rounds)
    text = f"""\
## Requests a second

Closed loop, one request in flight a connection, {KEYS:,} senders, recipients and clients,
{rounds} rounds of {seconds:g} s, {"unix sockets" if unix else "loopback TCP"}. Medians; the share is of the
no-op server's rate in the same round, with the middle half of the rounds. CPU is a share of
one core. {disturbances([run.others_cpu for row in rows for run in row.rounds])}

{markdown(rows)}"""
    return Part([asdict(row) for row in rows], text, _targets(rows, quiet.name, logging.name))


def measure(
    policyload: Path,
    compared: Sequence[Server],
    connections: Sequence[int],
    seconds: float,
    rounds: int,
    *more: str,
) -> list[Row]:
    """Load the servers in turn; the first is the measure of the others; `more` are the generator's options.

    InvalidRunError when a run did not measure what it is meant to.
    """
    runs: dict[tuple[int, str], list[Run]] = {}
    for server in compared:  # every key is folded and counted for the first time before the clock starts
        load.run(policyload, server, ["--conns", "64", "--requests", str(5 * KEYS), "--keys", str(KEYS)])
    for _, count, server in product(range(rounds), connections, compared):
        options = ["--conns", str(count), "--seconds", str(seconds), "--keys", str(KEYS), *more]
        runs.setdefault((count, server.name), []).append(_run(policyload, server, options))
    base = {count: [run.rps for run in runs[count, compared[0].name]] for count in connections}
    return [
        Row(name, count, tuple(values), ratio([run.rps for run in values], base[count]))
        for (count, name), values in runs.items()
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    return table(
        ("connections", "server", "requests/s", "of noop", "p50 ms", "p99 ms", "server CPU", "generator CPU"),
        (
            (
                str(row.connections),
                row.server,
                f"{row.median('rps'):,.0f}",
                f"{row.of_noop.median:.1%} ({row.of_noop.low:.1%} to {row.of_noop.high:.1%})",
                f"{row.median('p50_ms'):.2f}",
                f"{row.median('p99_ms'):.2f}",
                f"{row.median('server_cpu'):.0%}",
                f"{row.median('generator_cpu'):.0%}",
            )
            for row in rows
        ),
    )


def _targets(rows: Sequence[Row], quiet: str, logging: str) -> list[Target]:
    """What must be reached at 64 and at 256 connections."""
    targets = []
    for count, share in WANTED.items():
        at = {row.server: row for row in rows if row.connections == count}
        if not at:
            continue
        plain, logged = at[quiet], at[logging]
        kept = ratio([run.rps for run in logged.rounds], [run.rps for run in plain.rounds])
        targets.append(at_least(f"{count} connections: rate, of noop", plain.of_noop.median, share))
        targets.append(at_least(f"{count} connections: rate with log, of that without", kept.median, 0.6))
        if count == 64:
            targets.append(at_most("64 connections: p99", plain.median("p99_ms"), 5, "ms"))
    return targets


def _run(policyload: Path, server: Server, options: Sequence[str]) -> Run:
    """One run; a server that logs each decision must have written a line for each."""
    # Cut to nothing before each run: the file is in memory, and is written in append mode.
    server.log.write_bytes(b"")
    run = load.run(policyload, server, options)
    if server.logs_decisions and not wait_until(lambda: _lines(server.log) >= run.requests, 5):
        raise InvalidRunError(f"{server.name}: {_lines(server.log)} log lines for {run.requests} decisions")
    return run


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
