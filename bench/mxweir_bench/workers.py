"""Two worker processes against one on the same two cores: how much more they answer.

Whatever answers shares its cores with its load, and on each of them there is a load
generator with its share of the connections: smtpd runs on every core of a host, too.
With one generator for both cores, one worker would wait for it while it is behind the
other. One worker that has a core to share with its load, and no other, is shown, too:
it answers more than on two, for nobody has to be woken on another core. The limits are counted in the
process, which a configuration may say for one worker alone: so this measures the
workers, and not the Redis that they would wait for together.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from mxweir_bench import load, rates, servers
from mxweir_bench.compare import Spread, ratio
from mxweir_bench.report import Part, at_least, disturbances, table
from mxweir_bench.servers import Server, on_cores
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import free_port

WANTED = 1.5
"""What two workers are to answer, times what one does on the same cores with the same load."""

_CONNECTIONS = (64, 256)

_DAEMON = """
import sys
from dataclasses import replace
from pathlib import Path
from mxweir.config import load
from mxweir_policyd import app
path, workers = Path(sys.argv[1]), int(sys.argv[2])
config = load(path)
app.run(replace(config, policyd=replace(config.policyd, workers=workers)), path)
"""
"""The daemon of a configuration, with so many workers."""

_HEAD = (
    *("connections", "", "requests/s", "times one on one", "times one on two", "p50 ms", "p99 ms"),
    *("CPU", "requests per core second", "generator CPU"),
)


def part(tools: Tools, directory: Path, seconds: float, rounds: int, *, unix: bool) -> Part:
    """One worker, which is the daemon itself, on one core and on two, and two on two, in turn."""
    core = max(os.sched_getaffinity(0))
    with ExitStack() as stack:
        compared = [
            stack.enter_context(_daemon(directory, name, workers, cores, unix=unix))
            for name, workers, cores in (
                ("1 worker, 1 core", 1, str(core)),
                ("1 worker, 2 cores", 1, ""),
                ("2 workers, 2 cores", 2, ""),
            )
        ]
        for server in compared:
            servers.check_work(server, *load.requests(tools.policyload, 2, rates.KEYS))
        rows = rates.measure(tools.policyload, compared, _CONNECTIONS, seconds, rounds, "--each-core")
    beside = {row.connections: row for row in rows if row.server == compared[1].name}
    cells = (
        (
            str(row.connections),
            row.server,
            f"{row.median('rps'):,.0f}",
            _times(row.of_noop),
            _times(ratio(_rates(row), _rates(beside[row.connections]))),
            f"{row.median('p50_ms'):.2f}",
            f"{row.median('p99_ms'):.2f}",
            f"{row.median('server_cpu'):.0%}",
            f"{row.median('rps') / row.median('server_cpu'):,.0f}",
            f"{row.median('generator_cpu'):.0%}",
        )
        for row in rows
    )
    text = f"""\
## Workers

Five limits counted in the process, {rounds} rounds of {seconds:g} s in turn; medians. On each core of what
is loaded runs a load generator with its share of the connections.
{disturbances([run.others_cpu for row in rows for run in row.rounds])}

{table(_HEAD, cells)}"""
    targets = [
        at_least(
            f"{row.connections} connections: two workers on two cores, of one",
            ratio(_rates(row), _rates(beside[row.connections])).median,
            WANTED,
        )
        for row in rows
        if row.server == compared[2].name
    ]
    return Part([asdict(row) for row in rows], text, targets)


def _rates(row: rates.Row) -> list[float]:
    return [run.rps for run in row.rounds]


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


@contextmanager
def _daemon(directory: Path, name: str, workers: int, cores: str, *, unix: bool) -> Iterator[Server]:
    home = directory / name.replace(" ", "-").replace(",", "")
    address = f"unix:{home}/policy" if unix else f"127.0.0.1:{free_port()}"
    config, log = servers.configure(home, address), home / "log"
    argv = [*on_cores(cores), sys.executable, "-P", "-c", _DAEMON, config, str(workers)]
    with servers.running(name, argv, address, log) as child:
        yield Server(name, address, servers.members(child), log, cores=cores)
