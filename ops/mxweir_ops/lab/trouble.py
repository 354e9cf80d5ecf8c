"""Trouble for a PostgreSQL, one kind at a time; each ends when its `with` ends.

Most take the server and the connection string of the database that is to suffer.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg
from psycopg import conninfo, sql

from mxweir_ops.lab.postgresql import PostgreSQL
from mxweir_ops.lab.process import LabError, wait_until

STORM = """
DO $$ BEGIN FOR batch IN 1..{transactions} LOOP
    INSERT INTO mxweir.domains (name)
        SELECT format('{name}%s-%s.example', batch, n) FROM generate_series(1, {rows}) n;
    COMMIT;
END LOOP; END $$
"""


@contextmanager
def stopped(server: PostgreSQL, _: str) -> Iterator[None]:
    """Stopped in order, and started again."""
    server.stop()
    yield
    server.start()


@contextmanager
def killed(server: PostgreSQL, _: str) -> Iterator[None]:
    """As in a crash, and started again."""
    server.kill()
    yield
    server.start()


@contextmanager
def frozen(server: PostgreSQL, _: str) -> Iterator[None]:
    """Stopped in its tracks (SIGSTOP): it takes connections and answers nothing."""
    server.freeze()
    yield
    server.thaw()


@contextmanager
def full(server: PostgreSQL, dsn: str) -> Iterator[None]:
    """All its connections are taken by others, and those to this database were cut."""
    database = sql.Identifier(str(conninfo.conninfo_to_dict(dsn)["dbname"]))
    with ExitStack() as taken:
        superuser = taken.enter_context(psycopg.connect(server.dsn(), autocommit=True))
        # Nobody comes back before all places are taken.
        superuser.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
        cut_off(superuser, dsn)
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(psycopg.connect(server.dsn()))
        superuser.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))
        yield


@contextmanager
def locked(_: PostgreSQL, dsn: str) -> Iterator[None]:
    """Another transaction has the table for itself."""
    with psycopg.connect(dsn) as locking:
        locking.execute("LOCK TABLE mxweir.domains IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def other_password(server: PostgreSQL, user: str, former: str) -> Iterator[None]:
    """A role's password is another one, and its connections are cut; then it is the former one again."""
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        change = sql.SQL("ALTER ROLE {} PASSWORD {}")
        superuser.execute(change.format(sql.Identifier(user), sql.Literal("another")))
        superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [user])
        yield
        superuser.execute(change.format(sql.Identifier(user), sql.Literal(former)))


def cut_off(superuser: psycopg.Connection, dsn: str) -> None:
    """End all connections to a database, and wait until they are gone."""
    database = conninfo.conninfo_to_dict(dsn)["dbname"]
    superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    if not wait_until(lambda: superuser.execute(left, [database]).fetchone() == (0,), 10.0):
        raise LabError(f"connections to {database} do not end")


def storm(dsn: str, transactions: int, rows: int, name: str = "s") -> None:
    """Add that many domains in that many transactions, as fast as it goes; each notifies.

    `name` is how their names begin.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(STORM.format(transactions=transactions, rows=rows, name=name).encode())
