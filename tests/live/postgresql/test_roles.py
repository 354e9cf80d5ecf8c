"""The shipped roles are enough for what they are for, and for nothing else."""

from pathlib import Path

import psycopg
import pytest

from mxweir.config.sections import Postgres
from mxweir.domains.match import digest
from mxweir.domains.record import Record
from mxweir_policyd.relaydomains import migrate, table
from mxweir_policyd.relaydomains.audit import audit
from mxweir_policyd.relaydomains.queries import queries
from mxweir_policyd.relaydomains.sources.postgres import Source, SourceError, connect

ROLES = (Path(__file__).parents[3] / "conf" / "postgres" / "roles.sql").read_text()


@pytest.fixture
def roles(connection, postgresql):
    """Both roles with a password; the function gives the settings of one for this test's database."""
    for _ in range(2):
        connection.execute(ROLES)
    for name in ("mxweir_reader", "mxweir_writer"):
        connection.execute(f"ALTER ROLE {name} PASSWORD 'lab'")
    return lambda name: Postgres(dsn=postgresql.dsn(connection.info.dbname, name, "lab"))


def test_a_reader_can_do_all_that_a_daemon_does_and_change_nothing(roles, connection):
    table.add(connection, [Record("a.example")], None)
    source = Source(roles("mxweir_reader"))
    source.listen()
    point = source.point()
    assert len(list(source.fill())) == 1
    assert source.digest().rows == 1
    table.remove(connection, "a.example")
    assert source.wait(30)
    assert list(source.changes(point)) == [[(digest("a.example"), None)]]
    assert audit(source.connection, queries().all()) == []
    assert migrate.version(source.connection) == migrate.newest()
    for change in (
        "INSERT INTO mxweir.domains (name) VALUES ('b.example')",
        "UPDATE mxweir.domains SET enabled = false",
        "DELETE FROM mxweir.domains",
        "TRUNCATE mxweir.domains",
        "DELETE FROM mxweir.removed",
        "CREATE TABLE mxweir.more ()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            source.connection.execute(change)
    with pytest.raises(
        SourceError, match=r"permission denied for table domains: .* mxweir_writer change \(--dsn\)"
    ):
        table.add(source.connection, [Record("b.example")], None)
    source.close()


def test_a_writer_can_do_all_that_the_commands_do_and_not_change_the_schema(roles):
    with connect(roles("mxweir_writer")) as writer:
        assert table.add(writer, [Record("a.example")], "one") == 1
        assert table.replace(writer, [Record("b.example"), Record("c.example")], 1.0) == (2, 1, 2)
        assert table.remove(writer, "b.example")
        for change in (
            "DELETE FROM mxweir.removed",
            "DROP TABLE mxweir.domains",
            "INSERT INTO mxweir.migrations (number, name) VALUES (99, 'x')",
            "ALTER TABLE mxweir.domains DISABLE TRIGGER ALL",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute(change)


def test_who_is_neither_sees_nothing(roles, connection, postgresql):
    connection.execute("DROP ROLE IF EXISTS stranger")
    connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'lab'")
    source = Source(Postgres(dsn=postgresql.dsn(connection.info.dbname, "stranger", "lab")))
    with pytest.raises(SourceError, match=r"permission denied for schema mxweir: roles\.sql"):
        list(source.fill())
    source.close()
