"""Does each query find its index? The planner is asked (EXPLAIN); nothing is run.

A query passes if no relation is read from end to end, if nothing but what LIMIT
cuts off reads more rows than the query may touch, and if the estimated cost is
no more than that of so many rows, each fetched by itself. None of these bounds
knows the size of the table: what passes costs the same at ten domains and at ten
million.

On mxweir's connections sequential scans are switched off, which PostgreSQL takes
as a strong wish (`queries.PLANNING`). So one that is left, in a table of
any size, means that there is no index for the query.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import psycopg

from mxweir_policyd.relaydomains.queries import Query
from mxweir_policyd.relaydomains.sources.postgres import SourceError, told

Plan = Mapping[str, Any]

_WHOLE = ("Sort", "Aggregate", "Hash", "Materialize", "Bitmap Heap Scan", "Bitmap Index Scan", "WindowAgg")
"""Nodes that take all of their input before they give a row: a LIMIT above stops none of it."""

_LOOKUPS = 4
"""Random pages for a row: down an index whose upper pages are cached, the row itself, and some room."""

_START = 50
"""Random pages that a query may cost before its first row."""


class Finding(NamedTuple):
    """What is wrong with a query, and what to do about it."""

    query: str
    what: str


class Costs(NamedTuple):
    """The planner's own prices (random_page_cost, cpu_tuple_cost), in which plans are priced."""

    page: float
    row: float


def audit(connection: psycopg.Connection[Any], queries: Iterable[Query]) -> list[Finding]:
    """Explain each query and judge its plan; raises SourceError."""
    try:
        costs = _costs(connection)
        return [finding for query in queries for finding in judge(query, explain(connection, query), costs)]
    except psycopg.Error as error:
        raise SourceError(told(error)) from None


def explain(connection: psycopg.Connection[Any], query: Query) -> Plan:
    """The plan of a query, with its sample values; raises psycopg.Error."""
    ((plans,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {query.text}", query.sample).fetchall()
    plan: Plan = plans[0]["Plan"]
    return plan


def judge(query: Query, plan: Plan, costs: Costs) -> Iterator[Finding]:
    """What is wrong with a plan."""
    faults = list(_faults(query, plan, limited=False))
    bound = (query.rows * _LOOKUPS + _START) * (costs.page + costs.row)
    if not faults and plan["Total Cost"] > bound:
        cost = f"its estimated cost is {plan['Total Cost']:.0f}, not {bound:.0f} at most"
        faults = [f"no index fits: {cost} (or is it time for ANALYZE?)"]
    for fault in faults:
        yield Finding(query.name, fault)


def _faults(query: Query, node: Plan, limited: bool) -> Iterator[str]:
    kind, relation = node["Node Type"], node.get("Relation Name", "")
    if kind == "Seq Scan":
        yield f"reads all of {relation}: there is no index for it"
    elif not limited and "Index Name" in node and node["Plan Rows"] > query.rows:
        rows = f"an estimated {node['Plan Rows']} rows of {node['Index Name']}, not {query.rows} at most"
        yield f"no index fits: it reads {rows} (or is it time for ANALYZE?)"
    below = kind == "Limit" or (limited and kind not in _WHOLE)
    for child in node.get("Plans", ()):
        yield from _faults(query, child, below)


def _costs(connection: psycopg.Connection[Any]) -> Costs:
    text = "SELECT current_setting('random_page_cost')::float8, current_setting('cpu_tuple_cost')::float8"
    ((page, row),) = connection.execute(text).fetchall()
    return Costs(page, row)
