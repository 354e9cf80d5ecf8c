"""Some minutes with engines that misbehave at random: does any answer come late, is anything left behind?

Sessions send mail to mxweir's milter directly (mta.py), so that what is timed is
the milter's answer and nothing else; some break off before the end of a message,
some while they wait for the answer. The engines (hostility.py) speak both
protocols, on unix sockets and TCP, and each turns to another manner every second
or so. Before and after, with no session open, the milter's memory, threads,
sockets and tasks are counted: they are to be the same.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mxweir.endpoint import Endpoint, Unix
from mxweir_bench import milters, usage
from mxweir_bench.milters import Ours
from mxweir_bench.mta import Closed, Letter, Session
from mxweir_bench.report import Part, Target, at_most, table
from mxweir_ops.lab.place import free_endpoint
from mxweir_ops.lab.process import Child, wait_until

DEADLINE = 1.0
"""Seconds; short, so that many deadlines are met within minutes."""

_BREAKER = '[milter.breaker]\npause = "200ms"\n'
"""An engine that nobody asks cannot do harm: breakers are to close soon, and open again."""

_SESSIONS = 24
_SEED = 1
_QUIET = 3 * DEADLINE


@dataclass(slots=True)
class Heard:
    """What the sessions heard: answers by their letter, the slowest in seconds, and what was broken off."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    late: int = 0
    broken_off: int = 0
    closed: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    """What a process holds: resident MiB, threads, sockets, and tasks of its event loop."""

    rss: float
    threads: int
    sockets: int
    tasks: int


def part(directory: Path, minutes: float) -> Part:
    """Warm up for a tenth of the time, count, go on for the rest, count again."""
    home = directory / "soak"
    home.mkdir()
    unix, *tcp = Unix(f"{home}/spamd"), free_endpoint(), free_endpoint()
    tables = milters.spamd(unix) + milters.rspamd(tcp[0]) + milters.spamd(tcp[1]) + _BREAKER
    with ExitStack() as stack:
        words = [f"spamd={unix}", f"rspamd={tcp[0]}", f"spamd={tcp[1]}"]
        script = Path(__file__).with_name("hostility.py")
        argv: list[str | Path] = [sys.executable, "-P", script, str(_SEED), *words]
        hostile = Child("hostile engines", argv, home / "hostile.log")
        stack.callback(hostile.stop)
        settings = f'deadline = "{DEADLINE:g}s"\n'
        ours = stack.enter_context(milters.mxweir("mxweir", home, tables, "asyncio", milter=settings))
        lot = random.Random(_SEED)
        asyncio.run(_sessions(ours.milter.endpoint, 6 * minutes, lot))
        before = left(ours)
        heard = asyncio.run(_sessions(ours.milter.endpoint, 54 * minutes, lot))
        after = left(ours)
        hostile.stop()
        engines = json.loads(hostile.printed().splitlines()[-1])
    targets = [
        at_most("soak: slowest answer, over the deadline", 1000 * (heard.slowest - DEADLINE), 100, "ms"),
        at_most("soak: resident memory, grown by", after.rss - before.rss, 8, "MiB"),
        *(
            _no_more(f"soak: {what}", getattr(before, what), getattr(after, what))
            for what in ("threads", "sockets", "tasks")
        ),
    ]
    figures = {"heard": asdict(heard), "before": asdict(before), "after": asdict(after), "engines": engines}
    return Part(figures, _text(minutes, heard, before, after), targets)


def left(ours: Ours) -> Left:
    """What the milter holds once it is at rest; every second session's socket takes a moment to go."""
    wait_until(lambda: ours.metric("mxweir_milter_sessions") == 0, _QUIET)
    time.sleep(_QUIET)  # whatever is still under way ends at its deadline
    pids = ours.milter.pids()
    return Left(
        usage.memory(pids).rss,
        usage.threads(pids),
        usage.sockets(pids),
        int(ours.metric("mxweir_milter_tasks")),
    )


async def _sessions(endpoint: Endpoint, seconds: float, lot: random.Random) -> Heard:
    heard, until = Heard(), time.monotonic() + seconds

    async def one(lot: random.Random) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(lot.uniform(0.0, 0.2))
            with suppress(OSError):
                async with await Session.open(endpoint) as session:
                    await _talk(session, lot, heard)

    await asyncio.gather(*(one(random.Random(lot.random())) for _ in range(_SESSIONS)))
    return heard


async def _talk(session: Session, lot: random.Random, heard: Heard) -> None:
    """Up to three messages in a session, most of them small; one in ten is broken off, one way or another."""
    for _ in range(lot.randint(1, 3)):
        if await session.begin(Letter(int(2 ** lot.uniform(8, 19.5)))):
            continue
        whim = lot.random()
        if whim < 0.05:
            heard.broken_off += 1
            session.abort()
            continue
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(lot.uniform(0, DEADLINE) if whim < 0.1 else None):
                    answer = await session.end()
            except Closed:
                heard.closed += 1
                return
            heard.answers[answer.verdict.decode()] += 1
            heard.slowest = max(heard.slowest, answer.seconds)
            heard.late += answer.seconds > DEADLINE + 0.1
            continue
        heard.broken_off += 1
        return


def _no_more(what: str, before: int, after: int) -> Target:
    return Target(what, f"at most {before}, as before", str(after), met=after <= before)


def _text(minutes: float, heard: Heard, before: Left, after: Left) -> str:
    rows = [("before", before), ("after", after)]
    held = table(
        ("moment", "resident MiB", "threads", "sockets", "tasks"),
        [(name, f"{row.rss:.1f}", str(row.threads), str(row.sockets), str(row.tasks)) for name, row in rows],
    )
    total = sum(heard.answers.values())
    return f"""\
## Soak: engines that misbehave at random

{minutes:g} minutes, {_SESSIONS} sessions, deadline {DEADLINE:g} s, three engines (seed {_SEED}).
{total:,} messages answered, the slowest after {heard.slowest:.3f} s, {heard.late} later than the deadline and
100 ms; {heard.broken_off} broken off by us; {heard.closed} times the milter hung up where an answer was due.

{held}"""
