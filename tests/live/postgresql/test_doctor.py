"""`mxweir doctor` says what is wrong with PostgreSQL, as the daemons see it."""

import json

import psycopg
import pytest

from mxweir_ops.cli import main
from mxweir_ops.lab.postgresql import PostgreSQL
from mxweir_policyd.relaydomains.migrate import migrate
from mxweir_policyd.relaydomains.queries import queries


@pytest.fixture
def doctor(tmp_path, capsys):
    """Runs the check of PostgreSQL; its status, and what it found by subject."""
    file = tmp_path / "mxweir.toml"

    def run(dsn: str, rest: str = "") -> tuple[int, dict[str, tuple[str, str]]]:
        file.write_text(f'state_dir = "{tmp_path}"\n[postgres]\ndsn = "{dsn}"\n{rest}\n')
        status = main(["doctor", "--only", "postgres", "--json", "--config", str(file)])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return status, {finding["subject"]: (finding["state"], finding["what"]) for finding in found}

    return run


def test_all_is_well_with_the_schema_as_it_is_made(doctor, settings):
    status, found = doctor(settings.dsn)
    assert status == 0
    assert found["PostgreSQL's schema"] == ("good", "is at 1")
    assert found["PostgreSQL's indexes"] == ("good", f"serve all {len(queries().all())} queries")
    assert sorted(state for state, _ in found.values()) == ["good", "good", "note"]  # as a superuser


def test_a_database_without_the_schema_is_told_how_to_get_one(doctor, database: str):
    status, found = doctor(database)
    assert status == 1
    assert found["PostgreSQL's schema"] == ("bad", "is not there: mxweir domains init makes it")


@pytest.mark.parametrize(("number", "what"), [(0, "is not there"), (99, "upgrade mxweir here too")])
def test_a_schema_of_another_version_is_told(doctor, settings, connection, number, what):
    connection.execute("UPDATE mxweir.migrations SET number = nullif(%s, 0) WHERE %s > 0", [number, number])
    connection.execute("DELETE FROM mxweir.migrations WHERE %s = 0", [number])
    status, found = doctor(settings.dsn)
    assert status == 1
    assert what in found["PostgreSQL's schema"][1]


def test_a_missing_index_is_told_with_the_query_that_misses_it(doctor, settings, connection):
    connection.execute("DROP INDEX mxweir.domains_version")
    status, found = doctor(settings.dsn)
    assert status == 1
    what = "reads all of domains: there is no index for it"
    assert found["PostgreSQL's index for the query changed"] == ("bad", what)


def test_a_customers_view_is_audited_and_needs_no_schema_of_ours(doctor, settings, connection):
    connection.execute("CREATE SCHEMA customers")
    connection.execute(
        "CREATE TABLE customers.t AS SELECT 'a.example' AS domain, now() AS touched, '' AS hop"
    )
    connection.execute(
        """CREATE VIEW customers.v AS SELECT mxweir.hash(domain) AS hash, domain AS name, hop AS next_hop,
        false AS include_subdomains, true AS enabled, '' AS tenant, touched AS changed FROM customers.t"""
    )
    status, found = doctor(settings.dsn, 'view = "customers.v"')
    assert status == 1
    assert sorted(subject for subject, (state, _) in found.items() if state == "bad") == [
        f"PostgreSQL's index for the query {name}" for name in ("changed", "digest", "fill", "find")
    ]
    connection.execute("CREATE UNIQUE INDEX ON customers.t (mxweir.hash(domain))")
    connection.execute("CREATE INDEX ON customers.t (touched, mxweir.hash(domain))")
    assert doctor(settings.dsn, 'view = "customers.v"')[0] == 0
    connection.execute("UPDATE customers.t SET hop = 'smtp:[192.0.2.1] '")
    told = "1 of the first 1 rows have no next hop for transport(5), such as 'smtp:[192.0.2.1] '"
    assert told in doctor(settings.dsn, 'view = "customers.v"')[1]["PostgreSQL's view customers.v"][1]
    connection.execute("INSERT INTO customers.t VALUES ('B.Example', now()), ('bücher.example', now())")
    status, found = doctor(settings.dsn, 'view = "customers.v"')
    assert status == 1
    assert "2 of the first 3 rows are never found" in found["PostgreSQL's view customers.v"][1]


def test_who_cannot_connect_is_told_why_without_the_password(doctor, postgresql: PostgreSQL):
    status, found = doctor(postgresql.dsn(password="hunter2"))
    assert status == 1
    assert "password authentication failed" in found["PostgreSQL"][1]
    assert "hunter2" not in str(found)


def test_migrations_of_the_wheel_are_those_of_the_doctor(database: str):
    with psycopg.connect(database, autocommit=True) as connection:
        assert [step.name for step in migrate(connection, create=True)] == ["domains"]
