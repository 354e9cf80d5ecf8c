"""A customer's own table behind a view, by the very SQL of docs/relay-domains.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mxweir.config.sections import Postgres
from mxweir.domains.match import digest
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_ops.lab.host import PATIENCE, Host
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.relaydomains.audit import audit
from mxweir_policyd.relaydomains.queries import LAST, queries
from mxweir_policyd.relaydomains.sources.postgres import Source

DOCS = Path(__file__).parents[3] / "docs"
VIEW = "customers.relay_domains"

THEIRS = """
CREATE SCHEMA customers;
CREATE TABLE customers.domains (domain varchar(4096), mail_host text,
    suspended boolean NOT NULL DEFAULT false, customer_id integer,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO customers.domains VALUES ('One.Example', 'smtp:[192.0.2.1]', false, 7),
    ('two.example', NULL, false, NULL), ('off.example', NULL, true, 8);
CREATE ROLE {reader}
"""


def documented(role: str) -> str:
    """The SQL of the section on a table of one's own, for a role of this test's database."""
    section = (DOCS / "relay-domains.md").read_text().split("## A table of your own")[1]
    (sql,) = re.findall(r"^```sql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return str(sql).replace("mxweir_reader", role)


@pytest.fixture
def customer(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The owner of a table that is mapped as documented."""
    role = f"reader_of_{connection.info.dbname}"
    connection.execute(THEIRS.format(reader=role).encode())
    connection.execute(documented(role).encode())
    yield connection
    connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.fixture
def view(customer: psycopg.Connection, settings: Postgres) -> Iterator[Source]:
    source = Source(Postgres(dsn=settings.dsn, view=VIEW))
    yield source
    source.close()


def of(rows) -> dict[str, Record | None]:
    names = {digest(name): name for name in ("one.example", "two.example", "off.example", "new.example")}
    return {names[key]: raw and Record.decode(raw) for key, raw in rows}


def test_it_is_read_as_our_own_table_is(view: Source):
    found = of(row for batch in view.fill() for row in batch)
    assert found == {
        "one.example": Record("one.example", "smtp:[192.0.2.1]", False, FROM_POSTGRES, True, "7"),
        "two.example": Record("two.example", "", False, FROM_POSTGRES),
        "off.example": Record("off.example", "", False, FROM_POSTGRES, False, "8"),
    }
    assert of(view.find([digest("one.example")]).items()) == {"one.example": found["one.example"]}
    assert (view.digest().end, view.digest().rows) == (LAST, 3)


def test_what_is_null_says_nothing_and_switches_nothing_off(view: Source, customer: psycopg.Connection):
    customer.execute("ALTER TABLE customers.domains ALTER suspended DROP NOT NULL")
    customer.execute("INSERT INTO customers.domains (domain, suspended) VALUES ('new.example', NULL)")
    assert of(view.find([digest("new.example")]).items()) == {
        "new.example": Record("new.example", "", False, FROM_POSTGRES)
    }


def test_the_audit_is_content_with_the_documented_indexes(view: Source):
    assert audit(view.connection, queries(VIEW).all()) == []


def test_a_change_pokes_and_is_found_by_its_time(view: Source, customer: psycopg.Connection):
    view.listen()
    point = view.point()
    customer.execute("INSERT INTO customers.domains (domain) VALUES ('new.example')")
    assert view.wait(90)
    assert "new.example" in of(row for batch in view.changes(point) for row in batch)


def test_a_daemon_follows_it(customer: psycopg.Connection, settings: Postgres):
    with temporary_directory() as directory, Host(directory, settings.dsn, f'view = "{VIEW}"') as host:
        assert host.follows()
        assert [host.ask(name) for name in ("one.example", "off.example", "new.example")] == [
            "DUNNO",
            "550",
            "550",
        ]
        customer.execute("INSERT INTO customers.domains (domain) VALUES ('new.example')")
        assert host.comes_to("DUNNO", "new.example")


def test_a_row_without_a_name_is_no_domain_and_keeps_none_away(
    customer: psycopg.Connection, settings: Postgres
):
    customer.execute("INSERT INTO customers.domains (domain) VALUES (NULL)")
    with temporary_directory() as directory, Host(directory, settings.dsn, f'view = "{VIEW}"') as host:
        assert host.follows()
        customer.execute("INSERT INTO customers.domains (domain) VALUES ('new.example'), (NULL)")
        assert wait_until(lambda: len(host.content()) == 4, PATIENCE)
        assert not host.records(event="follower ended")


def test_a_view_in_place_of_the_table_is_followed_after_a_reload_and_the_table_again(
    customer: psycopg.Connection, settings: Postgres
):
    customer.execute("INSERT INTO mxweir.domains (name) VALUES ('ours.example')")
    with temporary_directory() as directory, Host(directory, settings.dsn) as host:
        assert host.follows()
        for postgres, count in ((f'view = "{VIEW}"', 3), ("", 1)):
            host.configure(settings.dsn, postgres, 'max_shrink = "100%"')
            host.reload()
            assert wait_until(lambda expected=count: len(host.content()) == expected, PATIENCE)  # type: ignore[misc]
        assert not host.records(event="follower ended")
