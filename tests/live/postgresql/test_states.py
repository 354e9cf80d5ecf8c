"""The table of states in docs/failure.md, row by row, with a real PostgreSQL."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from mxweir.domains.reader import POSTGRES
from mxweir_ops.lab.host import PATIENCE, Host, add, prepare, remove
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL, Standby
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.trouble import cut_off
from mxweir_policyd.relaydomains.keeper import take_lock
from mxweir_policyd.relaydomains.mirror import Mirror

PAGE = Path(__file__).parents[3] / "docs" / "failure.md"
KNOWN, SINCE, FOREIGN = "known.example", "since.example", "foreign.example"
ALL = [KNOWN, *(f"known{number}.example" for number in range(9))]
WORDS = {"passes": "DUNNO", "450": "450", "550": "550", "—": "", "`DUNNO`: the check is off": "DUNNO"}


def table() -> dict[str, tuple[str, str, str]]:
    """The states, and what the three kinds of domains get in them."""
    section = PAGE.read_text().split("\n## PostgreSQL\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    return {row[0].strip(): (row[1].strip(), row[2].strip(), row[3].strip()) for row in rows}


@dataclass
class Scene:
    """What a state is made from: a host that follows a database with ALL in it, and what undoes the state."""

    server: PostgreSQL
    dsn: str
    """As the owner of the table; the host has `host_dsn`, of a role that may read it."""
    host_dsn: str
    host: Host
    undo: ExitStack
    known: str = KNOWN

    @property
    def database(self) -> str:
        """The name of the database."""
        return str(conninfo.conninfo_to_dict(self.dsn)["dbname"])

    def hung(self) -> None:
        """The follower does nothing from now on, so the replica lacks what is added."""
        pid = self.host.follower
        os.kill(pid, signal.SIGSTOP)
        self.undo.callback(_go_on, pid)

    def cut(self) -> None:
        """End the connections that the host has."""
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        self.server.execute(end, [self.database])

    def told(self, event: str) -> None:
        """Wait until the daemon has logged this."""
        self.host.wait_for(PATIENCE, event=event)

    def restarted(self, between: Callable[[], object]) -> None:
        """Stop the host, do something, and start it."""
        self.host.stop()
        between()
        self.host.start()

    def down(self) -> None:
        """Stop the server."""
        self.server.kill()
        self.undo.callback(self.server.start)


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def all_well(scene: Scene) -> None:
    scene.hung()
    add(scene.dsn, SINCE)


def stopped(scene: Scene) -> None:
    with _while_hung(scene):
        add(scene.dsn, SINCE)
        scene.down()
    scene.told("PostgreSQL cannot be asked")
    scene.told("domains cannot be confirmed")


def frozen(scene: Scene) -> None:
    with _while_hung(scene):
        add(scene.dsn, SINCE)
        scene.server.freeze()
        scene.undo.callback(scene.server.thaw)


def full(scene: Scene) -> None:
    with _while_hung(scene):
        add(scene.dsn, SINCE)
        superuser = scene.undo.enter_context(psycopg.connect(scene.server.dsn(), autocommit=True))
        superuser.execute("ALTER ROLE daemon CONNECTION LIMIT 0")  # until all places are taken
        cut_off(superuser, scene.dsn)
        with suppress(psycopg.OperationalError):
            while True:
                scene.undo.enter_context(psycopg.connect(scene.server.dsn()))
        superuser.execute("ALTER ROLE daemon CONNECTION LIMIT -1")
    scene.told("PostgreSQL cannot be asked")
    scene.told("domains cannot be confirmed")


def locked(scene: Scene) -> None:
    with _while_hung(scene):
        add(scene.dsn, SINCE)
        locking = scene.undo.enter_context(psycopg.connect(scene.dsn))
        locking.execute("LOCK TABLE mxweir.domains IN ACCESS EXCLUSIVE MODE")


def other_password(scene: Scene) -> None:
    with _while_hung(scene):
        add(scene.dsn, SINCE)
        scene.server.execute("ALTER ROLE daemon PASSWORD 'another'")
        scene.cut()
    scene.told("PostgreSQL cannot be asked")
    scene.told("domains cannot be confirmed")


def standby(scene: Scene) -> None:
    """The standby does not replay what it receives, so it lags."""
    other = scene.undo.enter_context(Standby(scene.server.directory.parent, scene.server))
    assert wait_until(other.caught_up, PATIENCE)
    other.execute("SELECT pg_wal_replay_pause()")
    dsn = conninfo.make_conninfo(scene.host_dsn, host=str(other.directory), port=other.port)
    scene.restarted(lambda: scene.host.configure(dsn))
    scene.told("PostgreSQL does not notify")
    add(scene.dsn, SINCE)


def stopped_and_rejected(scene: Scene) -> None:
    scene.restarted(lambda: scene.host.configure(scene.host_dsn, domains='unconfirmed = "reject"'))
    assert scene.host.follows()
    stopped(scene)


def stopped_for_long(scene: Scene) -> None:
    """The clock cannot be moved: the replica says instead that it heard of PostgreSQL long ago."""
    add_unseen(scene)
    scene.host.configure(scene.host_dsn, domains='unconfirmed = "reject"')
    mirror = Mirror(scene.host.state)
    mirror.update(seen=1.0)
    mirror.close()
    scene.down()
    scene.host.start()


def not_filled(scene: Scene) -> None:
    """Another process has the lock of the follower, so that nobody fills."""
    scene.host.stop()
    (scene.host.state / POSTGRES).unlink()
    scene.undo.callback(os.close, _follower_lock(scene.host))
    add(scene.dsn, SINCE)
    scene.host.start()


def not_filled_and_stopped(scene: Scene) -> None:
    not_filled(scene)
    scene.down()


def damaged(scene: Scene) -> None:
    """Damage keeps the follower from nothing: what is asked first is asked while it mends."""
    scene.host.stop()
    _damage(scene.host)
    add(scene.dsn, SINCE)
    scene.host.start()


def damaged_and_stopped(scene: Scene) -> None:
    scene.host.stop()
    _damage(scene.host)
    add(scene.dsn, SINCE)
    scene.down()
    scene.host.start()
    scene.told("replica damaged")


def disk_full(scene: Scene) -> None:
    """By a limit to the size of the files of the follower, and more domains than there is room for."""
    limit = (scene.host.state / POSTGRES).stat().st_size
    resource.prlimit(scene.host.follower, resource.RLIMIT_FSIZE, (limit, limit))
    add(scene.dsn, SINCE, *(f"d{number}.example" for number in range(2000)))
    scene.told("replica not written")


def frozen_by_hand(scene: Scene) -> None:
    mirror = Mirror(scene.host.state)
    mirror.freeze(1.0)
    mirror.close()
    scene.told("relay domains are frozen")
    add(scene.dsn, SINCE)


def shrunk(scene: Scene) -> None:
    remove(scene.dsn, *ALL)
    scene.told("relay domains refused to shrink")
    all_well(scene)


def switched_off(scene: Scene) -> None:
    with psycopg.connect(scene.dsn) as connection:
        connection.execute("UPDATE mxweir.domains SET enabled = false WHERE name = %s", [KNOWN])
    scene.told("relay domains changed")
    all_well(scene)


def above_switched_off(scene: Scene) -> None:
    with psycopg.connect(scene.dsn) as connection:
        columns = "(name, include_subdomains, enabled)"
        connection.execute(f"INSERT INTO mxweir.domains {columns} VALUES ('off.example', true, false)")
    scene.told("relay domains changed")
    scene.known = "sub.off.example"
    scene.host.domains.write_text(f"{scene.known}\n")
    scene.host.wait_for(PATIENCE, event="domains loaded", added=1)
    all_well(scene)


def empty(scene: Scene) -> None:
    scene.host.stop()
    (scene.host.state / POSTGRES).unlink()
    remove(scene.dsn, *ALL)
    scene.host.start()
    scene.told("relay check is off")


SCENES: dict[str, Callable[[Scene], None]] = {
    "all well": all_well,
    "PostgreSQL stopped": stopped,
    "PostgreSQL frozen": frozen,
    "PostgreSQL takes no more connections": full,
    "the table is locked": locked,
    "the password was changed": other_password,
    "only a hot standby can be asked, and it lags": standby,
    'stopped, with `unconfirmed = "reject"`': stopped_and_rejected,
    'stopped, with `unconfirmed = "reject"`, for longer than `domains.max_age`': stopped_for_long,
    "first fill not done": not_filled,
    "first fill not done, and PostgreSQL stopped": not_filled_and_stopped,
    "replica damaged": damaged,
    "replica damaged, and PostgreSQL stopped": damaged_and_stopped,
    "disk full: the replica cannot be written": disk_full,
    "follower killed or hung": all_well,
    "replica frozen by hand": frozen_by_hand,
    "PostgreSQL would take away more than `domains.max_shrink`": shrunk,
    "a domain is switched off there (`enabled = false`)": switched_off,
    "a domain is switched off there with its subdomains, and the domains file of this host has one below it"
    ' (here "known")': above_switched_off,
    "PostgreSQL's table is empty, and nothing is given on this host": empty,
}


@contextmanager
def _while_hung(scene: Scene) -> Iterator[None]:
    pid = scene.host.follower
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        _go_on(pid)


def add_unseen(scene: Scene) -> None:
    """Add while the host does not look; it is stopped then."""
    scene.host.stop()
    add(scene.dsn, SINCE)


def _follower_lock(host: Host) -> int:
    lock: list[int] = []

    def taken() -> bool:
        found = take_lock(host.state)
        lock.extend([] if found is None else [found])
        return bool(lock)

    assert wait_until(taken, PATIENCE)
    return lock[0]


def _damage(host: Host) -> None:
    path = host.state / POSTGRES
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with temporary_directory() as directory, PostgreSQL(directory, {"max_connections": "12"}) as server:
        server.execute("CREATE ROLE daemon LOGIN PASSWORD 'secret'")
        yield server


@pytest.fixture
def scene(server: PostgreSQL) -> Iterator[Scene]:
    server.execute("ALTER ROLE daemon PASSWORD 'secret'")
    database = server.new_database()
    prepare(server.dsn(database), *ALL)
    server.execute("GRANT USAGE ON SCHEMA mxweir TO daemon", database=database)
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA mxweir TO daemon", database=database)
    dsn = server.dsn(database, "daemon", "secret")
    with temporary_directory() as directory, Host(directory, dsn) as host, ExitStack() as undo:
        assert host.follows()
        yield Scene(server, server.dsn(database), dsn, host, undo)


def test_the_table_has_each_state_that_is_tested_and_no_other() -> None:
    assert list(table()) == list(SCENES)


@pytest.mark.parametrize("state", SCENES)
def test_in_each_state_each_domain_gets_what_the_table_says(scene: Scene, state: str) -> None:
    SCENES[state](scene)
    expected = dict(zip((scene.known, SINCE, FOREIGN), (WORDS[cell] for cell in table()[state]), strict=True))
    asked = {domain: scene.host.ask(domain) for domain, answer in expected.items() if answer}
    assert asked == {domain: answer for domain, answer in expected.items() if answer}
