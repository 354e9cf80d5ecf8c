"""The table keeps hash and name together, and tells of each change."""

import hashlib
import threading

import psycopg
import pytest

from mxweir.domains.match import digest
from mxweir_policyd.relaydomains.queries import CHANNEL


def rows(connection, columns="name, hash"):
    return connection.execute(f"SELECT {columns} FROM mxweir.domains ORDER BY name").fetchall()


def notified(connection) -> list[str]:
    first = [notify.payload for notify in connection.notifies(timeout=60, stop_after=1)]
    return first + [notify.payload for notify in connection.notifies(timeout=0.2)]


def test_the_hash_is_that_of_the_name_whatever_was_given(connection):
    connection.execute("INSERT INTO mxweir.domains (name) VALUES ('a.example')")
    connection.execute("INSERT INTO mxweir.domains (name, hash) VALUES ('b.example', 'no hash')")
    assert rows(connection) == [(name, digest(name)) for name in ("a.example", "b.example")]
    connection.execute("UPDATE mxweir.domains SET name = 'c.example' WHERE name = 'a.example'")
    connection.execute("UPDATE mxweir.domains SET hash = '\\x00' WHERE name = 'b.example'")
    assert rows(connection) == [(name, digest(name)) for name in ("b.example", "c.example")]


def test_also_with_triggers_switched_off_no_row_has_another_hash(connection):
    connection.execute("ALTER TABLE mxweir.domains DISABLE TRIGGER ALL")
    with pytest.raises(psycopg.errors.CheckViolation, match="hash is that of the name"):
        connection.execute("INSERT INTO mxweir.domains (name, hash) VALUES ('a.example', 'no hash')")
    connection.execute(
        "INSERT INTO mxweir.domains (name, hash) VALUES ('a.example', %s)", [digest("a.example")]
    )


def test_case_and_a_closing_dot_are_folded(connection):
    connection.execute("INSERT INTO mxweir.domains (name) VALUES ('A.Example.')")
    assert rows(connection) == [("a.example", hashlib.sha256(b"a.example").digest())]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "localhost",
        "bücher.example",
        "a b.example",
        "-a.example",
        "a-.example",
        "a..example",
        ".a.example",
        "a@b.example",
        "a\\b.example",
        "192.0.2.1",
        f"{'a' * 64}.example",
        f"{'a.' * 130}example",
        "a.example\n",
    ],
)
def test_what_is_no_mail_domain_is_refused(connection, name):
    with pytest.raises(psycopg.errors.CheckViolation, match="name is a mail domain in lower-case A-labels"):
        connection.execute("INSERT INTO mxweir.domains (name) VALUES (%s)", [name])


def test_a_transaction_pokes_once_however_much_it_changes(connection, settings):
    connection.execute(f"LISTEN {CHANNEL}")
    with psycopg.connect(settings.dsn) as other, other.transaction():
        for number in range(300):
            other.execute("INSERT INTO mxweir.domains (name) VALUES (%s)", [f"d{number}.example"])
        other.execute("UPDATE mxweir.domains SET enabled = false")
        other.execute("DELETE FROM mxweir.domains WHERE name < 'd2'")
    assert notified(connection) == [""]
    with psycopg.connect(settings.dsn, autocommit=True) as other:
        other.execute("TRUNCATE mxweir.domains")
    assert notified(connection) == [""]


def test_the_time_of_a_change_is_kept(connection):
    connection.execute("INSERT INTO mxweir.domains (name, changed) VALUES ('a.example', '2001-01-01')")
    (((first,),)) = rows(connection, "changed")
    connection.execute("UPDATE mxweir.domains SET tenant = 'x'")
    (((second,),)) = rows(connection, "changed")
    assert first.year > 2001
    assert second > first


def test_what_was_removed_is_forgotten_after_forty_days(connection):
    connection.execute("INSERT INTO mxweir.domains (name) VALUES ('a.example'), ('b.example')")
    connection.execute("DELETE FROM mxweir.domains WHERE name = 'a.example'")
    connection.execute("UPDATE mxweir.removed SET removed = now() - interval '41 days'")
    connection.execute("DELETE FROM mxweir.domains WHERE name = 'b.example'")
    assert connection.execute("SELECT hash FROM mxweir.removed").fetchall() == [(digest("b.example"),)]


def test_two_that_remove_at_once_do_not_wait_for_each_others_forgetting(connection, settings):
    connection.execute(
        "INSERT INTO mxweir.domains (name) SELECT 'd' || i || '.example' FROM generate_series(1, 9) i"
    )
    connection.execute("DELETE FROM mxweir.domains WHERE name > 'd3'")
    connection.execute("UPDATE mxweir.removed SET removed = now() - interval '41 days'")
    done = threading.Event()

    def remove_another() -> None:
        with psycopg.connect(settings.dsn, autocommit=True) as other:
            other.execute("DELETE FROM mxweir.domains WHERE name = 'd2.example'")
        done.set()

    with connection.transaction():
        connection.execute("DELETE FROM mxweir.domains WHERE name = 'd1.example'")
        thread = threading.Thread(target=remove_another)
        thread.start()
        assert done.wait(60)
    thread.join()
