"""A private PostgreSQL from the distribution's programs, and a second one that follows it.

It shares nothing with the machine's clusters: data, configuration and socket
are in its own directory, root hands it to an unprivileged user, and it is
stopped by its own process id. Nothing is flushed to the disk: what a test
writes need not outlive a power cut.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from mxweir_ops.lab.place import free_port
from mxweir_ops.lab.process import Child, LabError, MissingError, Server, program, wait_until

SUPERUSER = "postgres"
PASSWORD = "lab password"  # noqa: S105 - of a server that lives as long as a test
_START_SECONDS = 60.0
_PROGRAMS = Path("/usr/lib/postgresql")

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
}

_ACCESS = """\
local all,replication all scram-sha-256
host all,replication all 127.0.0.1/32 scram-sha-256
"""


class PostgreSQL(Server):
    """One private PostgreSQL, from `start()` (or `with`) to `stop()`; started again, it has what it had.

    It listens on a unix socket in its directory and on 127.0.0.1. `settings` are
    lines of postgresql.conf that go over the lab's. Everybody needs a password;
    the superuser's is PASSWORD. One that is `aside` has the last processor, and no
    other: where speed is measured, it stands for one on another host.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        name: str = "postgresql",
        *,
        aside: bool = False,
    ):
        self.directory = directory / name
        self.data = self.directory / "data"
        self.port = free_port()
        self.settings = _SETTINGS | dict(settings or {})
        self._before = _last_processor() if aside else []
        self._child: Child | None = None
        self._databases = 0

    def start(self) -> None:
        """Start it and wait until it takes connections; LabError says in one line why it does not."""
        if not self.data.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            _give(self.directory)
            self._fill()
        self._configure()
        argv: list[str | Path] = [*self._before, _program("postgres"), "-D", self.data]
        self._child = Child("postgresql", _as_user(argv), self.directory / "postgresql.log")
        self._child.wait_ready(self.answers, _START_SECONDS)

    def stop(self) -> None:
        """Fast shutdown: clients are cut off, open transactions roll back. A frozen one is thawed first."""
        if self._child is not None:
            self.thaw()
            self._child.send(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(20.0)
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the server and each of its backends, as in a crash."""
        if self._child is not None:
            family = list(_family(self._child.pid))
            if self._child.status is None:
                self._child.send(signal.SIGKILL)
            for pid in family:
                _signal(pid, signal.SIGKILL)
            self._child.stop(5.0)
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 5.0)
            self._child = None

    def freeze(self) -> None:
        """Stop it and its backends in their tracks: TCP connections are accepted, nothing answers."""
        if self._child is not None:
            self._child.send(signal.SIGSTOP)  # first, so that no backend is born meanwhile
            for pid in _family(self._child.pid):
                _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        if self._child is not None:
            for pid in _family(self._child.pid):
                _signal(pid, signal.SIGCONT)
            self._child.send(signal.SIGCONT)

    def log(self) -> str:
        """Everything it has logged."""
        path = self.directory / "postgresql.log"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def dsn(
        self, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD, tcp: bool = False
    ) -> str:
        """A connection string, over the unix socket or 127.0.0.1."""
        return conninfo.make_conninfo(
            host="127.0.0.1" if tcp else str(self.directory),
            port=self.port,
            dbname=database,
            user=user,
            password=password,
        )

    def new_database(self) -> str:
        """Make an empty database, and return its name."""
        self._databases += 1
        name = f"lab{self._databases}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def execute(
        self, query: str | sql.Composable, parameters: Sequence[Any] = (), database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside a transaction; the rows that it gives."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(query, parameters or None)  # type: ignore[arg-type] # a test's own text
            return cursor.fetchall() if cursor.description else []

    def answers(self) -> bool:
        """Whether it takes a connection and answers a query within two seconds."""
        with (
            suppress(psycopg.Error),
            psycopg.connect(self.dsn(), connect_timeout=2, autocommit=True) as connection,
        ):
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False

    def _fill(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        _give(password)
        _run(
            *(_program("initdb"), "-D", self.data, "-U", SUPERUSER, f"--pwfile={password}"),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
        )

    def _configure(self) -> None:
        settings = self.settings | {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data / "postgresql.conf").write_text(lines)
        (self.data / "pg_hba.conf").write_text(_ACCESS)


class Standby(PostgreSQL):
    """A hot standby that streams from a primary; the primary must be running when it first starts."""

    def __init__(
        self,
        directory: Path,
        primary: PostgreSQL,
        settings: Mapping[str, str] | None = None,
        *,
        aside: bool = False,
    ):
        super().__init__(
            directory, dict(primary.settings) | dict(settings or {}), name="standby", aside=aside
        )
        self._primary = primary

    def promote(self) -> None:
        """Make it a primary, and wait until it takes writes."""
        self.execute("SELECT pg_promote()")

    def caught_up(self) -> bool:
        """Whether it has replayed all that the primary has written so far."""
        ((written,),) = self._primary.execute("SELECT pg_current_wal_lsn()::text")
        return self.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]) == [(True,)]

    def _fill(self) -> None:
        _run(
            *(_program("pg_basebackup"), "-D", self.data, "--write-recovery-conf", "--no-sync"),
            *("--checkpoint=fast", "-d", self._primary.dsn()),
        )


def _program(name: str) -> Path:
    """A server program of the newest version there is: they are in no directory of PATH."""
    versions = sorted(_PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: _version(path.parts[-3]))
    return versions[-1] if versions else program(name, "postgresql")


def _version(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _run(*argv: str | Path) -> None:
    done = subprocess.run(_as_user(argv), capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(f"{Path(argv[0]).name} failed: {lines[-1] if lines else 'it does not say why'}")


def _as_user(argv: Sequence[str | Path]) -> list[str | Path]:
    """PostgreSQL refuses to run as root; setpriv becomes the program, so the process id stays ours."""
    if os.geteuid() != 0:
        return list(argv)
    user = _unprivileged_user()
    became = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs"]
    return [program("setpriv", "util-linux"), *became, "--", *argv]


def _last_processor() -> list[str | Path]:
    return [program("taskset", "util-linux"), "--cpu-list", str(max(os.sched_getaffinity(0)))]


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        user = _unprivileged_user()
        shutil.chown(path, user.pw_uid, user.pw_gid)


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise MissingError("there is neither a user postgres nor a user nobody for PostgreSQL to run as")


def _family(pid: int) -> Iterator[int]:
    """The backends of a server: each leads a session of its own, so a group's signal does not reach them."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # The name, in brackets, may hold anything; the parent is the second word behind it.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                yield int(stat.parent.name)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
