"""Lookups while the database is in trouble: p99 during each trouble beside p99 just before it, in one run.

One host follows a private PostgreSQL that has the load's recipient domains. The
load asks about these at a fixed pace, far below what the daemon could answer, and
a latency counts from when the question was due: so what is compared is waiting, not
how much work fits on the machine. Beside it, a few questions a second are about
domains that nobody has, so that confirmation is tried all the time. Before each
trouble the host has recovered from the one before.

PostgreSQL has a core of its own, for elsewhere it has a host of its own: what it
works on in a storm of changes is not to be taken for what the lookups wait for.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

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

_RUNS = 3

_PAUSE = 0.05
"""Seconds between two questions about unknown domains."""

Begin = Callable[[], AbstractContextManager[object]]
"""Begins a trouble, which lasts as long as the `with`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trouble: the load before it and during it, and how the unknown were answered meanwhile."""

    name: str
    before: Run
    during: Run
    foreign: str

    @property
    def ratio(self) -> float:
        """How many times longer the slowest hundredth takes."""
        return self.during.p99_ms / self.before.p99_ms


def part(built: Tools, directory: Path, seconds: float, storm: int) -> Part:
    """Each trouble once, `_RUNS` times so many seconds before and as long during it."""
    options = [f"--conns={_CONNECTIONS}", f"--rate={_PACE}", f"--seconds={seconds}", "--keys=1000"]
    with ExitStack() as stack:
        with _own_core():
            primary = stack.enter_context(PostgreSQL(directory / "trouble", {"max_connections": "30"}))
        name = primary.new_database()
        dsn = primary.dsn(name)
        prepare(dsn, *servers.RECIPIENT_DOMAINS)
        primary.execute("CREATE ROLE daemon LOGIN SUPERUSER PASSWORD 'daemon'")
        with _own_core():
            standby = stack.enter_context(Standby(directory / "trouble", primary))
        both = conninfo.make_conninfo(
            primary.dsn(name, "daemon", "daemon"),
            host=f"{primary.directory},{standby.directory}",
            port=f"{primary.port},{standby.port}",
            target_session_attrs="read-write",
        )
        lagging = conninfo.make_conninfo(dsn, host=str(standby.directory), port=standby.port)
        host = stack.enter_context(Host(directory / "trouble-host", both, _QUICK, log=_QUIET))
        behind = stack.enter_context(Host(directory / "trouble-behind", lagging, _QUICK, log=_QUIET))
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
        before = _usual(policyload, server, options)
        with begin():
            answers.clear()
            during = _usual(policyload, server, options)
            told = ", ".join(f"{answers.count(word)} × {word}" for word in sorted(set(answers)))
    return Row(name, before, during, told)


def _usual(policyload: Path, server: Server, options: list[str]) -> Run:
    """Of several runs, the one whose p99 is in the middle: something else may stop the machine in one."""
    runs = [load.run(policyload, server, options) for _ in range(_RUNS)]
    return sorted(runs, key=lambda run: run.p99_ms)[_RUNS // 2]


@contextmanager
def _own_core() -> Iterator[None]:
    """What is started meanwhile has the last core, with all that it starts; others may use it, too."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


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
    """In the background; it lasts longer than the run, or it was none."""
    blowing = threading.Thread(target=trouble.storm, args=(dsn, changes // 10, 10))
    blowing.start()
    yield
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
        (
            "trouble",
            "p50 before",
            "p99 before",
            "p50 during",
            "p99 during",
            "p99 ratio",
            "unknown got",
        ),
        [
            (
                row.name,
                *(f"{value:.2f} ms" for value in (row.before.p50_ms, row.before.p99_ms)),
                *(f"{value:.2f} ms" for value in (row.during.p50_ms, row.during.p99_ms)),
                f"{row.ratio:.2f}",
                row.foreign,
            )
            for row in rows
        ],
    )
    others = [run.others_cpu for row in rows for run in (row.before, row.during)]
    return (
        f"## Lookups while the database is in trouble\n\n{_PACE:,} questions a second for known domains over"
        f" {_CONNECTIONS} connections; of {_RUNS} runs of {seconds:g} s before and as many during each"
        f" trouble the one with the middle p99; latency from when each was due."
        f"\n\n{shown}\n\n{disturbances(others)}"
    )
