"""Lookups while the database is in trouble: p99 during each trouble beside p99 just before it, in one run.

One host follows a private PostgreSQL that has the load's recipient domains. The
load asks about these at a fixed pace, far below what the daemon could answer, and
a latency counts from when the question was due: so what is compared is waiting, not
how much work fits on the machine. Beside it, a few questions a second are about
domains that nobody has, so that confirmation is tried all the time. Before each
trouble the host has recovered from the one before.

PostgreSQL has the last processor, for elsewhere it has a host of its own: what it
works on in a storm of changes is not to be taken for what the lookups wait for. So
has who changes it, and who asks about unknown domains. The daemon and the load have
the others, and the follower's process has all.
"""

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from psycopg import conninfo

from mxweir_bench import load, servers
from mxweir_bench.load import InvalidRunError, Run
from mxweir_bench.report import Part, at_most, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab import trouble
from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.host import Host, prepare
from mxweir_ops.lab.postgresql import PostgreSQL, Standby
from mxweir_ops.lab.process import wait_until

_QUICK = 'query_timeout = "2s"\nconnect_timeout = "2s"\npoll = "1s"'
_QUIET = 'level = "error"'
_CONNECTIONS = 8

_PACE = 2_000
"""Questions a second, a tenth of what one worker answers: the slowest hundredth of a run are some hundred."""

_RUNS = 5
_EPISODES = 3
"""What stops this machine for some milliseconds stops it for minutes: so each trouble comes three times."""

_PAUSE = 0.5
"""Seconds between two questions about unknown domains.

Asking one and confirming it takes the load's processor for a millisecond: twenty a
second were two of a hundred questions that waited for that, and p99 was theirs.
"""

Begin = Callable[[], AbstractContextManager[object]]
"""Begins a trouble, which lasts as long as the `with`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trouble: the load before it and during it, and how often the unknown got which answer meanwhile."""

    name: str
    before: tuple[Run, ...]
    during: tuple[Run, ...]
    unknown: dict[str, int]

    @property
    def ratio(self) -> float:
        """How many times longer the slowest hundredth takes."""
        return _p99(self.during) / _p99(self.before)


def part(built: Tools, directory: Path, seconds: float, storm: int) -> Part:
    """Each trouble `_EPISODES` times, `_RUNS` times so many seconds before and as long during it."""
    options = [f"--conns={_CONNECTIONS}", f"--rate={_PACE}", f"--seconds={seconds}", "--keys=1000"]
    episodes = [
        _episode(built.policyload, options, directory / f"trouble{number}", storm)
        for number in range(_EPISODES)
    ]
    rows = [_together(same) for same in zip(*episodes, strict=True)]
    return Part(
        text=_text(rows, seconds),
        figures=[asdict(row) for row in rows],
        targets=[at_most(f"p99, {row.name}", row.ratio, 1.5, "times that before") for row in rows[1:]],
    )


def _episode(policyload: Path, options: list[str], directory: Path, storm: int) -> list[Row]:
    """Each trouble once, with servers that have seen none of them."""
    with ExitStack() as stack:
        primary = stack.enter_context(PostgreSQL(directory, {"max_connections": "30"}, aside=True))
        name = primary.new_database()
        dsn = primary.dsn(name)
        prepare(dsn, *servers.RECIPIENT_DOMAINS)
        primary.execute("CREATE ROLE daemon LOGIN SUPERUSER PASSWORD 'daemon'")
        standby = stack.enter_context(Standby(directory, primary, aside=True))
        everywhere = stack.enter_context(_without_last_processor())
        last = max(everywhere)
        both = conninfo.make_conninfo(
            primary.dsn(name, "daemon", "daemon"),
            host=f"{primary.directory},{standby.directory}",
            port=f"{primary.port},{standby.port}",
            target_session_attrs="read-write",
        )
        lagging = conninfo.make_conninfo(dsn, host=str(standby.directory), port=standby.port)
        kinds: list[tuple[str, Begin]] = [
            ("nothing", ExitStack),
            ("a table locked", lambda: trouble.locked(primary, dsn)),
            ("100 % of connections", lambda: trouble.full(primary, dsn)),
            (f"storm of {storm:,} changes", lambda: _storm(dsn, storm, last)),
            ("frozen", lambda: trouble.frozen(primary, dsn)),
            ("stopped", lambda: trouble.stopped(primary, dsn)),
            ("password changed", lambda: trouble.other_password(primary, "daemon", "daemon")),
            ("failover to a second host", lambda: _failover(primary, standby, last)),
        ]
        # One host after the other: what another works on meanwhile is not to be taken for the first one's.
        with _following(directory / "behind", lagging, everywhere) as behind:
            lags = _measure(policyload, options, last, behind, "a standby lags", lambda: _lag(standby))
        with _following(directory / "host", both, everywhere) as host:
            return [*(_measure(policyload, options, last, host, *kind) for kind in kinds), lags]


@contextmanager
def _following(directory: Path, source: str, everywhere: set[int]) -> Iterator[Host]:
    """A host whose follower's process has all processors."""
    with Host(directory, source, _QUICK, log=_QUIET, policyd="") as host:
        os.sched_setaffinity(host.follower, everywhere)
        yield host


def _together(rows: tuple[Row, ...]) -> Row:
    """One trouble's rows of all episodes."""
    before = (run for row in rows for run in row.before)
    during = (run for row in rows for run in row.during)
    told = Counter(word for row in rows for word, count in row.unknown.items() for _ in range(count))
    return Row(rows[0].name, tuple(before), tuple(during), dict(told))


def _measure(
    policyload: Path,
    options: list[str],
    last: int,
    host: Host,
    name: str,
    begin: Begin,
) -> Row:
    if not host.follows():
        raise InvalidRunError(f"the host did not recover before: {name}")
    server = Server(name, str(host.addresses.policy), servers.members(host.child), host.log_file)
    with _unknown(host, last) as answers:
        before = _runs(policyload, server, options)
        with begin():
            answers.clear()
            during = _runs(policyload, server, options)
            told = dict(Counter(answers))
    return Row(name, before, during, told)


def _runs(policyload: Path, server: Server, options: list[str]) -> tuple[Run, ...]:
    return tuple(load.run(policyload, server, options) for _ in range(_RUNS))


def _p99(runs: tuple[Run, ...]) -> float:
    """Of the run in the middle: something else may stop the machine in one."""
    return median(run.p99_ms for run in runs)


@contextmanager
def _without_last_processor() -> Iterator[set[int]]:
    """What is started meanwhile has all the others, if there are any; yields the numbers of all."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors - {max(processors)} or processors)
    try:
        yield processors
    finally:
        os.sched_setaffinity(0, processors)


@contextmanager
def _unknown(host: Host, last: int) -> Iterator[list[str]]:
    """Questions about domains that nobody has, all the time; the first words of the answers."""
    answers: list[str] = []

    def ask(ended: threading.Event) -> None:
        with PolicyClient(host.addresses.policy, 30.0) as client:
            for number in itertools.count():
                if ended.wait(_PAUSE):
                    return
                recipient = f"x@f{number}-{time.monotonic_ns()}.example"
                answers.append(client.ask(**USUAL | {"recipient": recipient}).split()[0])

    with _meanwhile(ask, last):
        yield answers


@contextmanager
def _lag(standby: Standby) -> Iterator[None]:
    standby.execute("SELECT pg_wal_replay_pause()")
    yield
    standby.execute("SELECT pg_wal_replay_resume()")


@contextmanager
def _storm(dsn: str, changes: int, last: int) -> Iterator[None]:
    """In the background, again and again."""

    def blow(ended: threading.Event) -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            trouble.storm(dsn, changes // 10, 10, f"s{number}-")

    with _meanwhile(blow, last):
        yield


@contextmanager
def _failover(primary: PostgreSQL, standby: Standby, last: int) -> Iterator[None]:
    primary.kill()
    with _meanwhile(lambda _: standby.promote(), last):
        yield
    if not wait_until(standby.answers, 30.0):
        raise InvalidRunError("the standby did not take over")


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None], processor: int) -> Iterator[None]:
    """Beside the `with`, at whose end the event is set; raises what the work does.

    On a processor that is not the lookups': only what the daemon has to do with it may cost them time.
    """
    ended = threading.Event()
    # The number 0 is this thread alone.
    with ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {processor})) as beside:
        working = beside.submit(work, ended)
        try:
            yield
        finally:
            ended.set()
        working.result()


def _text(rows: list[Row], seconds: float) -> str:
    shown = table(
        ("trouble", "p99 before", "p99 during", "ratio", "each run before", "each run during", "unknown got"),
        [
            (
                row.name,
                f"{_p99(row.before):.2f} ms",
                f"{_p99(row.during):.2f} ms",
                f"{row.ratio:.2f}",
                *(", ".join(f"{run.p99_ms:.1f}" for run in runs) for runs in (row.before, row.during)),
                ", ".join(f"{count} × {word}" for word, count in sorted(row.unknown.items())),
            )
            for row in rows
        ],
    )
    runs = len(rows[0].before)
    others = [run.others_cpu for row in rows for run in (*row.before, *row.during)]
    return (
        f"## Lookups while the database is in trouble\n\n{_PACE:,} questions a second for known domains over"
        f" {_CONNECTIONS} connections; p99 of the run in the middle of {runs} of {seconds:g} s before and as"
        f" many during each trouble, {_RUNS} from its beginning {_EPISODES} times; latency from when"
        f" each was due.\n\n{shown}\n\n{disturbances(others)}"
    )
