"""Lookups while the database is in trouble: p99 during each trouble beside p99 just before it, in one run.

One host follows a private PostgreSQL that has the load's recipient domains. The
load asks about these at a fixed pace, far below what the daemon could answer, and
a latency counts from when the question was due: so what is compared is waiting, not
how much work fits on the machine. Beside it, a few questions a second are about
domains that nobody has, so that confirmation is tried all the time. Before each
trouble the host has recovered from the one before.

PostgreSQL has the last processor, for elsewhere it has a host of its own: what it
works on in a storm of changes is not to be taken for what the lookups wait for. The
daemon and the load have the others, and the follower's process has all.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
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

_PAUSE = 0.2
"""Seconds between two questions about unknown domains.

Asking one and confirming it takes the load's processor for a millisecond: twenty a
second were two of a hundred questions that waited for that, and p99 was theirs.
"""

Begin = Callable[[], AbstractContextManager[object]]
"""Begins a trouble, which lasts as long as the `with`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trouble: the load before it and during it, and how the unknown were answered meanwhile."""

    name: str
    before: tuple[Run, ...]
    during: tuple[Run, ...]
    foreign: str

    @property
    def ratio(self) -> float:
        """How many times longer the slowest hundredth takes."""
        return _p99(self.during) / _p99(self.before)


def part(built: Tools, directory: Path, seconds: float, storm: int) -> Part:
    """Each trouble once, `_RUNS` times so many seconds before and as long during it."""
    options = [f"--conns={_CONNECTIONS}", f"--rate={_PACE}", f"--seconds={seconds}", "--keys=1000"]
    with ExitStack() as stack:
        primary = stack.enter_context(
            PostgreSQL(directory / "trouble", {"max_connections": "30"}, aside=True)
        )
        name = primary.new_database()
        dsn = primary.dsn(name)
        prepare(dsn, *servers.RECIPIENT_DOMAINS)
        primary.execute("CREATE ROLE daemon LOGIN SUPERUSER PASSWORD 'daemon'")
        standby = stack.enter_context(Standby(directory / "trouble", primary, aside=True))
        everywhere = stack.enter_context(_without_last_processor())
        both = conninfo.make_conninfo(
            primary.dsn(name, "daemon", "daemon"),
            host=f"{primary.directory},{standby.directory}",
            port=f"{primary.port},{standby.port}",
            target_session_attrs="read-write",
        )
        lagging = conninfo.make_conninfo(dsn, host=str(standby.directory), port=standby.port)
        host = stack.enter_context(Host(directory / "trouble-host", both, _QUICK, log=_QUIET, policyd=""))
        behind = stack.enter_context(
            Host(directory / "trouble-behind", lagging, _QUICK, log=_QUIET, policyd="")
        )
        for follower in (host.follower, behind.follower):
            os.sched_setaffinity(follower, everywhere)
        kinds: list[tuple[str, Host, Begin]] = [
            ("nothing", host, ExitStack),
            ("a table locked", host, lambda: trouble.locked(primary, dsn)),
            ("100 % of connections", host, lambda: trouble.full(primary, dsn)),
            (f"storm of {storm:,} changes", host, lambda: _storm(dsn, storm)),
            ("frozen", host, lambda: trouble.frozen(primary, dsn)),
            ("stopped", host, lambda: trouble.stopped(primary, dsn)),
            ("password changed", host, lambda: trouble.other_password(primary, "daemon", "daemon")),
            ("a standby lags", behind, lambda: _lag(standby)),
            ("failover to a second host", host, lambda: _failover(primary, standby)),
        ]
        rows = [_measure(built.policyload, options, *kind) for kind in kinds]
    return Part(
        text=_text(rows, seconds),
        figures=[asdict(row) for row in rows],
        targets=[at_most(f"p99, {row.name}", row.ratio, 1.5, "times that before") for row in rows[1:]],
    )


def _measure(
    policyload: Path,
    options: list[str],
    name: str,
    host: Host,
    begin: Begin,
) -> Row:
    if not host.follows():
        raise InvalidRunError(f"the host did not recover before: {name}")
    server = Server(name, str(host.addresses.policy), servers.members(host.child), host.log_file)
    with _unknown(host) as answers:
        before = _runs(policyload, server, options)
        with begin():
            answers.clear()
            during = _runs(policyload, server, options)
            told = ", ".join(f"{answers.count(word)} × {word}" for word in sorted(set(answers)))
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
def _unknown(host: Host) -> Iterator[list[str]]:
    """Questions about domains that nobody has, all the time; the first words of the answers."""
    answers: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        with PolicyClient(host.addresses.policy, 30.0) as client:
            for number in itertools.count():
                if ended.wait(_PAUSE):
                    return
                recipient = f"x@f{number}-{time.monotonic_ns()}.example"
                answers.append(client.ask(**USUAL | {"recipient": recipient}).split()[0])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        ended.set()
        asking.join()


@contextmanager
def _lag(standby: Standby) -> Iterator[None]:
    standby.execute("SELECT pg_wal_replay_pause()")
    yield
    standby.execute("SELECT pg_wal_replay_resume()")


@contextmanager
def _storm(dsn: str, changes: int) -> Iterator[None]:
    """In the background, again and again."""
    ended = threading.Event()

    def blow() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            trouble.storm(dsn, changes // 10, 10, f"s{number}-")

    blowing = threading.Thread(target=blow)
    blowing.start()
    yield
    ended.set()
    blowing.join()


@contextmanager
def _failover(primary: PostgreSQL, standby: Standby) -> Iterator[None]:
    primary.kill()
    promoting = threading.Thread(target=standby.promote)
    promoting.start()
    yield
    promoting.join()
    if not wait_until(standby.answers, 30.0):
        raise InvalidRunError("the standby did not take over")


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
                row.foreign,
            )
            for row in rows
        ],
    )
    others = [run.others_cpu for row in rows for run in (*row.before, *row.during)]
    return (
        f"## Lookups while the database is in trouble\n\n{_PACE:,} questions a second for known domains over"
        f" {_CONNECTIONS} connections; p99 of the run in the middle of {_RUNS} of {seconds:g} s before and as"
        f" many during each trouble, from its beginning; latency from when each was due."
        f"\n\n{shown}\n\n{disturbances(others)}"
    )
