"""Database trouble: what is known passes throughout, and when it is over all is well again by itself."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from psycopg import conninfo

from mxweir_ops.lab import trouble
from mxweir_ops.lab.host import PATIENCE, Host, add, prepare
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL, Standby
from mxweir_ops.lab.process import wait_until

KNOWN, FOREIGN = "known.example", "foreign.example"
QUICK = 'query_timeout = "2s"\nconnect_timeout = "2s"\npoll = "1s"'
"""Settings with which a server that says nothing is given up soon."""
LEFT_OVER = 240.0
"""Seconds for what is done in the time that nobody else wants: on a busy machine that is little."""
Kind = Callable[[PostgreSQL, str], AbstractContextManager[None]]


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


@pytest.fixture
def server(directory: Path) -> Iterator[PostgreSQL]:
    with PostgreSQL(directory, {"max_connections": "20"}) as server:
        yield server


@pytest.fixture
def dsn(server: PostgreSQL) -> str:
    made = server.dsn(server.new_database())
    prepare(made, KNOWN, *(f"d{number}.example" for number in range(20)))
    return made


@pytest.fixture
def host(directory: Path, dsn: str) -> Iterator[Host]:
    with Host(directory / "host", dsn, QUICK) as host:
        assert host.follows()
        yield host


@pytest.mark.parametrize(
    "kind", [trouble.stopped, trouble.killed, trouble.frozen, trouble.full, trouble.locked]
)
def test_through_any_trouble_what_is_known_passes_and_afterwards_changes_arrive_again(
    host: Host, server: PostgreSQL, dsn: str, kind: Kind
) -> None:
    with kind(server, dsn):
        assert host.comes_to("450", FOREIGN)
        assert host.is_at("away")
        assert host.ask(KNOWN) == "DUNNO"
        assert host.ask(FOREIGN) == "450"
    assert host.comes_to("550", FOREIGN)
    add(dsn, "new.example")
    assert host.comes_to("DUNNO", "new.example")
    assert host.follows()
    assert host.ask(KNOWN) == "DUNNO"


def test_a_standby_that_lags_brings_changes_as_soon_as_it_replays_them(
    directory: Path, server: PostgreSQL, dsn: str
) -> None:
    with Standby(directory, server) as standby:
        at = conninfo.make_conninfo(dsn, host=str(standby.directory), port=standby.port)
        with Host(directory / "host", at, QUICK) as host:
            assert host.follows()
            standby.execute("SELECT pg_wal_replay_pause()")
            add(dsn, "new.example")
            assert (host.ask(KNOWN), host.ask("new.example"), host.ask(FOREIGN)) == ("DUNNO", "450", "450")
            standby.execute("SELECT pg_wal_replay_resume()")
            assert host.comes_to("DUNNO", "new.example")
            assert host.ask(FOREIGN) == "450"


def test_after_a_failover_the_second_host_of_the_connection_string_is_followed(
    directory: Path, server: PostgreSQL, dsn: str
) -> None:
    with Standby(directory, server) as standby:
        both = conninfo.make_conninfo(
            dsn,
            host=f"{server.directory},{standby.directory}",
            port=f"{server.port},{standby.port}",
            target_session_attrs="read-write",
        )
        with Host(directory / "host", both, QUICK) as host:
            assert host.follows()
            assert wait_until(standby.caught_up, PATIENCE)
            server.kill()
            assert (host.comes_to("450", FOREIGN), host.ask(KNOWN)) == (True, "DUNNO")
            standby.promote()
            at = conninfo.make_conninfo(dsn, host=str(standby.directory), port=standby.port)
            add(at, "new.example")
            assert host.comes_to("DUNNO", "new.example")
            assert host.comes_to("550", FOREIGN)
            assert wait_until(lambda: len(host.content()) == 22, PATIENCE)
            assert host.follows()


def test_a_password_that_was_rotated_is_taken_by_a_reload(
    directory: Path, server: PostgreSQL, dsn: str
) -> None:
    database = str(conninfo.conninfo_to_dict(dsn)["dbname"])
    server.execute("CREATE ROLE daemon LOGIN SUPERUSER PASSWORD 'first'")
    with Host(directory / "host", server.dsn(database, "daemon", "first"), QUICK) as host:
        assert host.follows()
        server.execute("ALTER ROLE daemon PASSWORD 'second'")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'daemon'")
        assert host.is_at("away")
        assert (host.comes_to("450", FOREIGN), host.ask(KNOWN)) == (True, "DUNNO")
        host.configure(server.dsn(database, "daemon", "second"), QUICK)
        host.reload()
        assert host.follows()
        assert host.comes_to("550", FOREIGN)
        add(dsn, "new.example")
        assert host.comes_to("DUNNO", "new.example")
        assert "first" not in host.log()
        assert "second" not in host.log()


def test_a_storm_of_100_000_changes_is_taken_over_whole(host: Host, server: PostgreSQL, dsn: str) -> None:
    trouble.storm(dsn, transactions=2000, rows=50)
    rows = 100_021
    assert host.ask(KNOWN) == "DUNNO"
    assert host.comes_to("DUNNO", "s2000-50.example")
    assert wait_until(lambda: host.metric("mxweir_relay_domains") == rows, LEFT_OVER)
    assert len(host.records(event="relay domains changed")) < 500
