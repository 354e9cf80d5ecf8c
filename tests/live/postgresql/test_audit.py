"""Every query costs the same at ten thousand domains and at a million; one that would not is found out."""

from collections.abc import Iterator

import psycopg
import pytest

from mxweir.config.sections import Postgres
from mxweir_policyd.relaydomains.audit import Costs, audit, explain, judge
from mxweir_policyd.relaydomains.migrate import migrate
from mxweir_policyd.relaydomains.queries import ADD, ANY, REMOVE, queries
from mxweir_policyd.relaydomains.sources.postgres import connect

MILLION = 1_000_000
QUERIES = (*queries().all(), ADD, ANY, REMOVE)

FILL = """INSERT INTO mxweir.domains (hash, name)
SELECT mxweir.hash(name), name
FROM (SELECT 'mx' || i || '.example' AS name FROM generate_series({first}, {last}) i) domains"""

BESIDE_IT = """
ALTER TABLE mxweir.domains DISABLE TRIGGER ALL;
ALTER TABLE mxweir.domains DROP CONSTRAINT "hash is that of the name";
ALTER TABLE mxweir.domains DROP CONSTRAINT "name is a mail domain in lower-case A-labels";
ALTER TABLE mxweir.domains DROP CONSTRAINT domains_pkey;
DROP INDEX mxweir.domains_version
"""
"""What only costs time as so many rows are written: it says nothing of how they are found."""

AS_IT_WAS = """
ALTER TABLE mxweir.domains ADD PRIMARY KEY (hash);
CREATE INDEX domains_version ON mxweir.domains (version, hash);
INSERT INTO mxweir.removed (hash) SELECT hash FROM mxweir.domains WHERE name LIKE 'mx9%';
ANALYZE mxweir.domains, mxweir.removed
"""

CUSTOMERS = """
CREATE SCHEMA customers;
CREATE TABLE customers.domains AS
    SELECT 'mx' || i || '.example' AS domain, now() AS touched FROM generate_series(1, {rows}) i;
CREATE VIEW customers.relay_domains AS
    SELECT mxweir.hash(domain) AS hash, domain AS name, '' AS next_hop,
           false AS include_subdomains, true AS enabled, '' AS tenant, touched AS changed
    FROM customers.domains;
ANALYZE customers.domains
"""


@pytest.fixture(scope="module")
def large(postgresql) -> Iterator[psycopg.Connection]:
    """A connection as mxweir opens it, to a table of a million."""
    dsn = postgresql.dsn(postgresql.new_database())
    with psycopg.connect(dsn, autocommit=True) as owner:
        migrate(owner, create=True)
        owner.execute(BESIDE_IT)
        owner.execute(FILL.format(first=1, last=MILLION))
        owner.execute(AS_IT_WAS)
    with connect(Postgres(dsn=dsn, query_timeout=60.0)) as connection:
        yield connection


@pytest.fixture
def ours(settings) -> Iterator[psycopg.Connection]:
    with connect(settings) as connection:
        yield connection


def test_at_a_million_domains_no_query_reads_more_than_it_needs(large):
    assert large.execute("SELECT count(*) FROM mxweir.domains").fetchone() == (MILLION,)
    assert audit(large, QUERIES) == []


def test_a_lookup_costs_as_much_as_at_ten_thousand(large, ours):
    ours.execute(FILL.format(first=1, last=10_000))
    ours.execute("ANALYZE mxweir.domains")
    for query in (queries().find, ADD, ANY, REMOVE):
        costs = [explain(connection, query)["Total Cost"] for connection in (ours, large)]
        assert costs[1] <= 1.2 * costs[0] + 1.0, query.name


def test_a_table_of_any_size_passes(ours):
    assert audit(ours, QUERIES) == []
    ours.execute(FILL.format(first=1, last=3))
    assert audit(ours, QUERIES) == []


@pytest.mark.parametrize("size", ["small", "million"])
@pytest.mark.parametrize(
    ("ruin", "named"),
    [
        ("ALTER TABLE mxweir.domains DROP CONSTRAINT domains_pkey", {"find", "fill", "digest", "remove"}),
        ("DROP INDEX mxweir.domains_version", {"changed", "changed late"}),
        ("DROP INDEX mxweir.removed_version", {"removed", "removed late"}),
    ],
)
def test_a_missing_index_is_found_at_any_size(large, ours, size, ruin, named):
    connection = large if size == "million" else ours
    with connection.transaction(force_rollback=True):
        connection.execute(ruin)
        # Without the constraint that ON CONFLICT names, ADD cannot even be planned.
        found = {finding.query for finding in audit(connection, [*queries().all(), REMOVE])}
    # What is removed is looked up in both tables; as long as there is nothing, that is cheap.
    assert found - {"removed"} == named - {"removed"}
    assert ("removed" in found) == ("removed" in named or (size == "million" and "find" in named))


@pytest.mark.parametrize("rows", [10, 200_000])
def test_a_customers_view_is_judged_the_same_way(ours, rows):
    ours.execute(CUSTOMERS.format(rows=rows))
    view = queries("customers.relay_domains").all()
    findings = audit(ours, view)
    assert {finding.query for finding in findings} == {"find", "fill", "digest", "changed"}
    assert {finding.what for finding in findings} == {"reads all of domains: there is no index for it"}
    ours.execute("CREATE UNIQUE INDEX ON customers.domains (mxweir.hash(domain))")
    ours.execute("CREATE INDEX ON customers.domains (touched, mxweir.hash(domain))")
    ours.execute("ANALYZE customers.domains")
    assert audit(ours, view) == []


def test_a_cost_beyond_that_of_the_rows_it_may_touch_is_a_fault():
    (fault,) = judge(queries().find, {"Node Type": "Result", "Total Cost": 1e6}, Costs(4.0, 0.01))
    assert fault == (
        "find",
        "no index fits: its estimated cost is 1000000, not 345 at most (or is it time for ANALYZE?)",
    )
