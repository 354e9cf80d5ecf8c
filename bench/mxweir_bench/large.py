"""Memory while many large messages come in at once.

Two hundred connections each send 20 MB to the milter directly (mta.py) and end
their messages at the same time; the engine is silent, so that whatever is held is
held until the deadline. Once with the shipped limit of what is scanned, by a mail
server that leaves out the rest of a body when told to, and by one that does not;
once with a limit above what is sent, where only the bound on all messages together
is left.
"""

import asyncio
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from mxweir.endpoint import Endpoint, Unix
from mxweir_bench import milters, usage
from mxweir_bench.mta import Letter, Session
from mxweir_bench.report import Part, at_most, table
from mxweir_ops.lab.hostile import HostileEngine, Manner

CONNECTIONS, BYTES = 200, 20_000_000
DEADLINE = 8.0
"""Seconds, as shipped."""

_MOST_TOGETHER = 256
"""MiB, the shipped `milter.max_memory`."""


@dataclass(frozen=True, slots=True)
class Case:
    """How the milter is set and what the mail server does."""

    name: str
    milter: str
    skips: bool


CASES = (
    Case("shipped settings", "", skips=True),
    Case("shipped settings, all of each body sent", "", skips=False),
    Case('max_scan_size = "32MB"', 'max_scan_size = "32MB"\n', skips=True),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Resident MiB at rest and at the highest; the slowest answer in seconds."""

    case: str
    rest: float
    peak: float
    slowest: float


def part(directory: Path) -> Part:
    """All cases, each with a milter of its own."""
    home = directory / "large"
    home.mkdir()
    rows = [measure(home, case) for case in CASES]
    shown = table(
        ("milter", "at rest MiB", "highest MiB", "slowest answer"),
        [(row.case, f"{row.rest:.0f}", f"{row.peak:.0f}", f"{row.slowest:.2f} s") for row in rows],
    )
    text = f"""\
## Memory with large messages

{CONNECTIONS} connections that each send {BYTES // 10**6} MB at the same time, silent engine, deadline
{DEADLINE:g} s. All messages together may take {_MOST_TOGETHER} MiB (`max_memory`), and some a second time
while they are put together.

{shown}"""
    targets = []
    for row in rows:
        what = f"{CONNECTIONS} × 20 MB, {row.case}"
        targets.append(at_most(f"{what}: memory, grown by", row.peak - row.rest, 2 * _MOST_TOGETHER, "MiB"))
        late = 1000 * (row.slowest - DEADLINE)
        targets.append(at_most(f"{what}: slowest answer, over the deadline", late, 100, "ms"))
    return Part([asdict(row) for row in rows], text, targets)


def measure(home: Path, case: Case) -> Row:
    """One case. LabError when the milter does not start."""
    engine = Unix(f"{home}/{CASES.index(case)}")
    with ExitStack() as stack:
        stack.enter_context(HostileEngine("spamd", engine, Manner.SILENT))
        name = f"large {CASES.index(case)}"
        tables = milters.spamd(engine, f"max_scans = {CONNECTIONS}")
        ours = stack.enter_context(milters.mxweir(name, home, tables, "asyncio", milter=case.milter))
        asyncio.run(_send(ours.milter.endpoint, 1, 4096, skips=case.skips))
        rest = usage.memory(ours.milter.pids()).rss
        slowest = asyncio.run(_send(ours.milter.endpoint, CONNECTIONS, BYTES, skips=case.skips))
        return Row(case.name, rest, usage.memory(ours.milter.pids()).peak, slowest)


async def _send(endpoint: Endpoint, connections: int, size: int, *, skips: bool) -> float:
    """All messages at once; the slowest answer, in seconds."""
    sessions = [await Session.open(endpoint, skips=skips) for _ in range(connections)]
    await asyncio.gather(*(session.begin(Letter(size)) for session in sessions))
    answers = await asyncio.gather(*(session.end() for session in sessions))
    for session in sessions:
        session.close()
    return max(answer.seconds for answer in answers)
