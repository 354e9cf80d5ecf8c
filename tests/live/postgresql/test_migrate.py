"""The schema is made once, whoever makes it, and all of it or nothing."""

import concurrent.futures

import psycopg
import pytest

from mxweir_policyd.relaydomains import migrate as module
from mxweir_policyd.relaydomains.migrate import Migration, migrate, migrations, newest, version
from mxweir_policyd.relaydomains.sources.postgres import SourceError


def run(dsn: str, create: bool = True) -> list[int]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [migration.number for migration in migrate(connection, create)]


def version_of(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return version(connection)


def test_the_numbers_begin_at_1_and_have_no_gap():
    assert [migration.number for migration in migrations()] == list(range(1, newest() + 1))


def test_the_second_time_there_is_nothing_to_do(database):
    assert version_of(database) == 0
    assert run(database) == list(range(1, newest() + 1))
    assert version_of(database) == newest()
    assert run(database) == run(database, create=False) == []


def test_many_hosts_at_once_do_it_once(database):
    with concurrent.futures.ThreadPoolExecutor(8) as hosts:
        done = list(hosts.map(run, [database] * 8))
    assert sorted(done, key=len) == [[]] * 7 + [list(range(1, newest() + 1))]


def test_an_upgrade_makes_no_schema_where_there_is_none(database):
    with pytest.raises(SourceError, match="mxweir domains init makes it"):
        run(database, create=False)
    assert version_of(database) == 0


def test_one_that_fails_leaves_nothing_of_those_before_it(database, monkeypatch):
    broken = Migration(newest() + 1, "broken", "CREATE TABLE mxweir.half (); SELECT 1 / 0")
    monkeypatch.setattr(module, "migrations", lambda: [*migrations(), broken])
    with pytest.raises(SourceError, match="division by zero"):
        run(database)
    assert version_of(database) == 0


def test_what_is_missing_is_added_to_what_is_there(database, monkeypatch):
    run(database)
    more = Migration(newest() + 1, "more", "CREATE TABLE mxweir.more ()")
    monkeypatch.setattr(module, "migrations", lambda: [*migrations(), more])
    with concurrent.futures.ThreadPoolExecutor(4) as hosts:
        done = list(hosts.map(run, [database] * 4, [False] * 4))
    assert sorted(done, key=len) == [[], [], [], [more.number]]


def test_an_older_mxweir_leaves_a_newer_schema_alone(database):
    run(database)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO mxweir.migrations (number, name) VALUES (9999, 'of tomorrow')")
    with pytest.raises(SourceError, match="newer mxweir: it has migration 9999"):
        run(database)


def test_who_may_not_make_a_schema_is_told_so(database, postgresql):
    postgresql.execute("DROP ROLE IF EXISTS nobody_much")
    postgresql.execute("CREATE ROLE nobody_much LOGIN PASSWORD 'x'")
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with pytest.raises(SourceError, match="permission denied"):
        run(postgresql.dsn(str(name), "nobody_much", "x"))
