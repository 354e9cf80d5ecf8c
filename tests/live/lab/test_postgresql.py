"""The lab's PostgreSQL does what the tests of database trouble count on."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL, Standby
from mxweir_ops.lab.process import LabError, wait_until


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


def test_frozen_it_answers_nothing_and_killed_it_comes_back_with_what_was_committed(directory):
    with PostgreSQL(directory) as server:
        database = server.new_database()
        server.execute("CREATE TABLE t AS SELECT 1 AS a", database=database)
        server.freeze()
        assert not server.answers()
        server.thaw()
        assert wait_until(server.answers, 60)
        server.kill()
        assert not server.answers()
        server.start()
        assert server.execute("SELECT a FROM t", database=database) == [(1,)]


def test_a_standby_follows_and_takes_over_when_it_is_promoted(directory):
    with PostgreSQL(directory) as primary, Standby(directory, primary) as standby:
        primary.execute("CREATE TABLE t AS SELECT 1 AS a")
        assert wait_until(standby.caught_up, 90)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            standby.execute("INSERT INTO t VALUES (2)")
        primary.kill()
        standby.promote()
        standby.execute("INSERT INTO t VALUES (2)")
        assert standby.execute("SELECT a FROM t") == [(1,), (2,)]


def test_everybody_needs_a_password(directory):
    with PostgreSQL(directory, {"max_connections": "10"}) as server:
        server.execute("CREATE ROLE someone LOGIN PASSWORD 'right'")
        with psycopg.connect(server.dsn(user="someone", password="right", tcp=True)):
            pass
        for tcp in (False, True):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(server.dsn(user="someone", password="wrong", tcp=tcp))


def test_one_that_cannot_start_says_why_in_one_line(directory):
    server = PostgreSQL(directory, {"shared_buffers": "none"})
    with pytest.raises(LabError, match="contains errors") as error, server:
        pass
    assert "\n" not in str(error.value)
