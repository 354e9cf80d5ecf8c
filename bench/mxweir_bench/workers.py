"""Two worker processes against one: how much more they answer on two cores.

The limits are counted in the process, which a configuration may say for one worker
alone: so this measures the workers, and not the Redis that they would wait for
together.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from mxweir_bench import load, rates, servers
from mxweir_bench.report import Part, at_least, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import free_port

WANTED = 1.5
"""What two workers are to answer, times what one does."""

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
    *("connections", "", "requests/s", "times one", "p50 ms", "p99 ms"),
    *("CPU", "requests per core second", "generator CPU"),
)


def part(tools: Tools, directory: Path, seconds: float, rounds: int, *, unix: bool) -> Part:
    """One worker, which is the daemon itself, and two, in turn."""
    with ExitStack() as stack:
        compared = [stack.enter_context(_daemon(directory, count, unix=unix)) for count in (1, 2)]
        for server in compared:
            servers.check_work(server, *load.requests(tools.policyload, 2, rates.KEYS))
        rows = rates.measure(tools.policyload, compared, _CONNECTIONS, seconds, rounds)
    cells = (
        (
            str(row.connections),
            row.server,
            f"{row.median('rps'):,.0f}",
            f"{row.of_noop.median:.2f} ({row.of_noop.low:.2f} to {row.of_noop.high:.2f})",
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

Five limits counted in the process, {rounds} rounds of {seconds:g} s in turn; medians. The load generator
runs on the same cores: where there are only two, it takes its part from the two workers, and the requests for
each second that a core works for the daemon say what there would be without.
{disturbances([run.others_cpu for row in rows for run in row.rounds])}

{table(_HEAD, cells)}"""
    targets = [
        at_least(f"{row.connections} connections: two workers, of one", row.of_noop.median, WANTED)
        for row in rows
        if row.server == compared[1].name
    ]
    return Part([asdict(row) for row in rows], text, targets)


@contextmanager
def _daemon(directory: Path, count: int, *, unix: bool) -> Iterator[Server]:
    name = f"{count} worker{'s' * (count > 1)}"
    home = directory / f"workers-{count}"
    address = f"unix:{home}/policy" if unix else f"127.0.0.1:{free_port()}"
    config, log = servers.configure(home, address), home / "log"
    argv: list[str | Path] = [sys.executable, "-P", "-c", _DAEMON, config, str(count)]
    with servers.running(name, argv, address, log) as child:
        yield Server(name, address, servers.members(child), log)
