"""A replica that does as the source says ends with what the table has, whatever happens meanwhile."""

import contextlib
import hashlib
import time

import psycopg
import pytest

from mxweir.config.sections import Postgres
from mxweir.domains.match import digest
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL, Standby
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.relaydomains import queries
from mxweir_policyd.relaydomains.migrate import migrate
from mxweir_policyd.relaydomains.queries import LAST
from mxweir_policyd.relaydomains.sources import postgres as module
from mxweir_policyd.relaydomains.sources.postgres import Point, PointLostError, Source, SourceError


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """So that a few rows are several batches; the queries' own LIMIT is read when a Source is made."""
    for name, rows in (("BATCH", 7), ("RANGE", 5)):
        monkeypatch.setattr(queries, name, rows)
        monkeypatch.setattr(module, name, rows)


def add(connection, *names, **columns):
    for name in names:
        given = {"name": name} | columns
        connection.execute(
            f"INSERT INTO mxweir.domains ({', '.join(given)}) VALUES ({', '.join(['%s'] * len(given))})",
            list(given.values()),
        )


def names(count: int) -> list[str]:
    return [f"d{number}.example" for number in range(count)]


def filled(source: Source, after=b"") -> list[tuple[bytes, bytes]]:
    return [row for batch in source.fill(after) for row in batch]


def point_of(server: PostgreSQL) -> Point:
    with contextlib.closing(Source(Postgres(dsn=server.dsn()))) as source:
        return source.point()


def apply(source: Source, replica, since) -> Point:
    """One round of a follower; the point for the next."""
    point = source.point()
    for batch in source.changes(since):
        for key, raw in batch:
            if raw is None:
                replica.pop(key, None)
            else:
                replica[key] = raw
    return point


def test_a_row_is_what_the_replica_stores(connection, source):
    add(
        connection,
        "a.example",
        next_hop="smtp:[192.0.2.1]:25",
        include_subdomains=True,
        enabled=False,
        tenant="Müller & Söhne",
    )
    add(connection, "b.example")
    first = Record("a.example", "smtp:[192.0.2.1]:25", True, FROM_POSTGRES, False, "Müller & Söhne")
    stored = {
        digest(record.domain): record.encode()
        for record in (first, Record("b.example", "", False, FROM_POSTGRES))
    }
    assert dict(filled(source)) == stored
    assert source.find([digest("a.example"), digest("c.example")]) == {
        digest("a.example"): stored[digest("a.example")]
    }


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14, 30])
def test_a_fill_brings_each_row_once_in_the_order_of_hashes(connection, source, count):
    add(connection, *names(count))
    assert [key for key, _ in filled(source)] == sorted(map(digest, names(count)))


def test_a_fill_goes_on_where_it_was_interrupted(connection, source):
    add(connection, *names(30))
    whole = filled(source)
    for taken in range(31):
        assert filled(source, whole[taken - 1][0] if taken else b"") == whole[taken:]


def test_a_fill_ends_where_it_is_told_to(connection, source):
    add(connection, *names(30))
    whole = filled(source)
    got = [row for batch in source.fill(whole[3][0], whole[20][0]) for row in batch]
    assert got == whole[4:21]


def test_digests_cover_all_rows_and_say_what_is_in_them(connection, source):
    add(connection, *names(23))
    whole, after, seen = filled(source), b"", 0
    while after != LAST:
        found = source.digest(after)
        part = whole[seen : seen + found.rows]
        assert found.checksum == hashlib.sha256(b"".join(key + raw for key, raw in part)).digest()
        assert found.end == (part[-1][0] if found.rows == 5 else LAST)
        after, seen = found.end, seen + found.rows
    assert seen == 23


def test_changes_bring_a_replica_to_what_the_table_has(connection, source):
    add(connection, *names(20))
    point = source.point()
    replica = dict(filled(source))
    add(connection, *(f"new{number}.example" for number in range(20)))
    connection.execute("UPDATE mxweir.domains SET enabled = false WHERE name LIKE 'd1%'")
    connection.execute("UPDATE mxweir.domains SET name = 'x' || name WHERE name LIKE 'd2%'")
    connection.execute("DELETE FROM mxweir.domains WHERE name LIKE 'new1%'")
    add(connection, "new1.example")
    point = apply(source, replica, point)
    assert replica == dict(filled(source))
    connection.execute("TRUNCATE mxweir.domains")
    apply(source, replica, point)
    assert replica == {}


def test_a_transaction_that_commits_late_is_not_missed(connection, settings, source):
    """It writes first, others after it commit and are seen; then it commits."""
    add(connection, "kept.example", "gone.example")
    replica = dict(filled(source))
    point = source.point()
    with psycopg.connect(settings.dsn) as slow:
        add(slow, "late.example")
        slow.execute("DELETE FROM mxweir.domains WHERE name = 'gone.example'")
        for number in range(20):
            add(connection, f"early{number}.example")
            point = apply(source, replica, point)
        assert digest("late.example") not in replica
        slow.commit()
    point = apply(source, replica, point)
    assert replica == dict(filled(source))
    assert digest("late.example") in replica
    assert digest("gone.example") not in replica


def test_an_old_open_transaction_has_nothing_told_twice(connection, settings, source):
    """What it does itself is told when it is committed, however many looks later."""
    add(connection, "gone.example")
    with psycopg.connect(settings.dsn) as idle:
        add(idle, "late.example")
        idle.execute("DELETE FROM mxweir.domains WHERE name = 'gone.example'")
        add(connection, *names(20))
        connection.execute("DELETE FROM mxweir.domains WHERE name = 'd0.example'")
        point = source.point()
        assert list(source.changes(point)) == []
        add(connection, "new.example")
        assert [key for batch in source.changes(point) for key, _ in batch] == [digest("new.example")]
        point = source.point()
        idle.commit()
    told = {key: raw is not None for batch in source.changes(point) for key, raw in batch}
    assert told == {digest("late.example"): True, digest("gone.example"): False}


def test_what_a_long_transaction_did_comes_in_batches(connection, settings, source):
    with psycopg.connect(settings.dsn) as slow:
        add(slow, *names(20))
        point = source.point()
        slow.commit()
    assert [len(batch) for batch in source.changes(point)] == [7, 7, 6]


def test_a_point_of_a_former_version_tells_all_from_its_transaction_on(connection, source):
    add(connection, "a.example")
    former = source.point()
    add(connection, *names(8))
    for mark in (former.mark.partition(":")[0], former.mark.rpartition(":")[0]):
        told = [key for batch in source.changes(former._replace(mark=mark)) for key, _ in batch]
        assert told == [digest(name) for name in names(8)]


def test_a_standby_that_does_not_name_what_is_open_misses_nothing():
    with (
        temporary_directory() as directory,
        PostgreSQL(directory) as server,
        Standby(directory, server) as standby,
        psycopg.connect(server.dsn(), autocommit=True) as primary,
    ):
        migrate(primary, create=True)
        with psycopg.connect(server.dsn()) as slow:
            add(slow, "late.example")
            add(primary, "early.example")
            assert wait_until(standby.caught_up, 90.0)
            point = point_of(standby)
            slow.commit()
        assert wait_until(standby.caught_up, 90.0)
        with contextlib.closing(Source(Postgres(dsn=standby.dsn()))) as source:
            told = [key for batch in source.changes(point) for key, _ in batch]
        assert digest("late.example") in told


def test_changes_come_in_the_order_of_transactions_whatever_their_digits(connection, source):
    connection.execute("ALTER TABLE mxweir.domains DISABLE TRIGGER ALL")
    for number in range(3, 40):
        values = [f"d{number}.example", digest(f"d{number}.example"), str(number)]
        connection.execute("INSERT INTO mxweir.domains (name, hash, version) VALUES (%s, %s, %s)", values)
    since = source.point()._replace(mark="3")
    told = [Record.decode(raw).domain for batch in source.changes(since) for _, raw in batch if raw]
    assert told == [f"d{number}.example" for number in range(3, 40)]


def test_what_has_not_changed_is_not_told_again(connection, source):
    add(connection, *names(20))
    point = source.point()
    assert list(source.changes(point)) == []
    add(connection, "new.example")
    assert [len(batch) for batch in source.changes(point)] == [1]


def test_rows_from_another_clusters_backup_are_not_changes_of_this_one(connection, source):
    """Their transaction ids may lie in this one's future."""
    connection.execute("ALTER TABLE mxweir.domains DISABLE TRIGGER ALL")
    connection.execute(
        "INSERT INTO mxweir.domains (name, hash, version) VALUES ('a.example', %s, '999999999')",
        [digest("a.example")],
    )
    assert list(source.changes(source.point())) == []


@pytest.mark.parametrize(
    ("since", "why"),
    [
        ({"identity": "other/1"}, "the table is another one"),
        ({"mark": "99999999"}, "the cluster was set back"),
        ({"mark": "5:99999999:5"}, "the cluster was set back"),
        ({"mark": "2026-01-01 00:00"}, "no snapshot"),
        ({"at": time.time() - 31 * 86_400}, "too long ago"),
    ],
)
def test_a_point_that_says_nothing_here_is_lost(source, since, why):
    with pytest.raises(PointLostError, match=why):
        list(source.changes(source.point()._replace(**since)))


def test_a_point_of_another_table_is_lost(postgresql, connection, settings, source):
    """Transaction ids are those of the whole cluster: by them alone, nothing would ever have changed."""
    add(connection, "a.example")
    point = source.point()
    connection.execute("CREATE VIEW public.mine AS SELECT * FROM mxweir.domains")
    other = postgresql.dsn(postgresql.new_database())
    with psycopg.connect(other, autocommit=True) as there:
        migrate(there, create=True)
    for elsewhere in (Postgres(dsn=settings.dsn, view="public.mine"), Postgres(dsn=other)):
        with contextlib.closing(Source(elsewhere)) as second:
            for since, asked in ((point, second), (second.point(), source)):
                with pytest.raises(PointLostError, match="the table is another one"):
                    list(asked.changes(since))
    assert list(source.changes(point)) == []
    connection.execute("DROP SCHEMA mxweir CASCADE")
    migrate(connection, create=True)
    with pytest.raises(PointLostError, match="the table is another one"):
        list(source.changes(point))


def test_after_a_failover_a_point_is_lost_at_once_however_many_transactions_have_come_since():
    """The last checkpoint is that of the former primary for minutes, and transaction ids are given twice."""
    with (
        temporary_directory() as directory,
        PostgreSQL(directory) as server,
        Standby(directory, server) as standby,
    ):
        with psycopg.connect(server.dsn(), autocommit=True) as primary:
            migrate(primary, create=True)
            assert wait_until(standby.caught_up, 90.0)
            standby.execute("SELECT pg_wal_replay_pause()")
            add(primary, *names(10))
            point = point_of(server)
        server.kill()
        standby.promote()
        with psycopg.connect(standby.dsn(), autocommit=True) as promoted:
            add(promoted, *(f"new{number}.example" for number in range(30)))
        with (
            contextlib.closing(Source(Postgres(dsn=standby.dsn()))) as source,
            pytest.raises(PointLostError, match="the table is another one"),
        ):
            list(source.changes(point))


def test_a_change_pokes_and_many_poke_once(connection, source):
    source.listen()
    assert not source.wait(0)
    add(connection, *names(50))
    assert source.wait(90)
    while source.wait(0.2):
        pass
    add(connection, "one.example")
    assert source.wait(90)


def test_a_poke_that_comes_during_a_query_is_not_lost(connection, source):
    source.listen()
    add(connection, "a.example")
    filled(source)
    assert source.wait(90)


def test_the_text_of_an_error_is_one_line_and_has_no_password(postgresql):
    for dsn in (
        "host=127.0.0.1 port=1 password=hunter2 dbname=x",
        postgresql.dsn(password="hunter2"),
        "password=hunter2 hunter2",
        "postgresql://u:hunter2@[::1/x",
    ):
        with pytest.raises(SourceError) as error:
            Source(Postgres(dsn=dsn))
        assert "\n" not in str(error.value)
        assert "hunter2" not in str(error.value)
        assert str(error.value)


def test_a_lock_on_the_table_costs_no_more_than_the_time_a_query_has(connection, settings):
    source = Source(Postgres(dsn=settings.dsn, query_timeout=3.0))
    with connection.transaction():
        connection.execute("LOCK TABLE mxweir.domains IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match="statement timeout"):
            source.find([digest("a.example")])
    assert source.find([digest("a.example")]) == {}
    source.close()


def test_a_frozen_server_costs_no_more_than_the_time_a_query_has():
    with temporary_directory() as directory, PostgreSQL(directory) as server:
        source = Source(Postgres(dsn=server.dsn(), query_timeout=1.0, connect_timeout=60.0))
        server.freeze()
        with pytest.raises(SourceError, match="no answer within 1 s"):
            source.point()
        source.close()
        with pytest.raises(SourceError, match="timeout"):
            Source(Postgres(dsn=server.dsn(), connect_timeout=2.0))
        server.thaw()
        Source(Postgres(dsn=server.dsn(), connect_timeout=60.0)).close()
