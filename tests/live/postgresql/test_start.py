"""What a daemon says when it meets a PostgreSQL that is not as it should be."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mxweir_ops.lab.host import PATIENCE, Host, add, prepare
from mxweir_ops.lab.place import temporary_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


def test_a_query_without_an_index_is_told_loudly_and_mail_goes_on(directory: Path, database: str) -> None:
    prepare(database, "one.example")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP INDEX mxweir.domains_version")
    with Host(directory, database) as host:
        told = host.wait_for(PATIENCE, event="PostgreSQL has no index for a query")
        assert told["level"] == "error"
        assert "changed: reads all of domains: there is no index for it" in str(told)
        assert host.follows()
        assert host.ask("one.example") == "DUNNO"


def test_a_database_without_the_table_is_told_how_to_get_it_and_followed_once_it_has(
    directory: Path, database: str
) -> None:
    with Host(directory, database) as host:
        told = host.wait_for(PATIENCE, event="PostgreSQL cannot be asked")
        assert "mxweir domains init makes the table" in str(told)
        prepare(database)
        add(database, "one.example")
        assert host.follows()
        assert host.comes_to("DUNNO", "one.example")
