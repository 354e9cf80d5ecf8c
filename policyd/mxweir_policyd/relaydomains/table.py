"""Change the relay domains in PostgreSQL, as the commands do: add, remove, import.

An import is one transaction: the file goes into a temporary table by COPY, and
what differs is changed at once. Memory stays bounded on this side, and replicas
see the change as one.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import idna
import psycopg

from mxweir.domains.match import digest
from mxweir.domains.record import Record
from mxweir_policyd.relaydomains import queries
from mxweir_policyd.relaydomains.sources.postgres import SourceError, told

_BLOCK = 10_000
"""Lines that are sent at once: some 500 kB."""

_ESCAPED = str.maketrans({"\\": "\\\\"})
"""Of what COPY reads in another way, a next hop may hold this alone."""

Connection = psycopg.Connection[Any]


class RefusedError(Exception):
    """An import would take away more than `max_shrink` of the table, or its file is something else."""


class Changed(NamedTuple):
    """What an import did."""

    added: int
    removed: int
    total: int


def add(connection: Connection, records: Iterable[Record], tenant: str | None) -> int:
    """Add domains, or change them: all or none; returns how many are new.

    They are switched on. Adding takes nothing away: a domain that includes its
    subdomains keeps them, and its tenant where `tenant` is None. Raises SourceError.
    """
    added = 0
    try:
        with connection.transaction():
            # In one order, lest two that add the same wait for each other.
            for record in sorted(records, key=lambda record: digest(record.domain)):
                values = {
                    "name": record.domain,
                    "unicode_name": unicode_name(record.domain),
                    "next_hop": record.next_hop,
                    "include_subdomains": record.include_subdomains,
                    "tenant": tenant,
                }
                row = connection.execute(queries.ADD.text, values).fetchone()
                added += row == (True,)
    except psycopg.Error as error:
        raise SourceError(told(error)) from None
    return added


def is_empty(connection: Connection) -> bool:
    """Whether there is no domain at all. Raises SourceError."""
    try:
        return connection.execute(queries.ANY.text).fetchone() is None
    except psycopg.Error as error:
        raise SourceError(told(error)) from None


def remove(connection: Connection, domain: str) -> bool:
    """Remove a folded domain; False if it was not there. Raises SourceError."""
    try:
        return connection.execute(queries.REMOVE.text, {"hash": digest(domain)}).rowcount > 0
    except psycopg.Error as error:
        raise SourceError(told(error)) from None


def replace(connection: Connection, records: Iterable[Record], max_shrink: float) -> Changed:
    """Let the table hold exactly these domains; one that comes twice counts as it came last.

    Tenants and domains that are switched off stay so. Raises RefusedError
    for the share `max_shrink`, and SourceError; the table is then as it was.
    """
    try:
        with connection.transaction():
            for statement in queries.INCOMING:
                connection.execute(statement)
            with connection.cursor().copy(queries.COPY_IN) as copy:
                for block in _blocks(records):
                    copy.write(block)
            changed = _merge(connection, max_shrink)
        connection.execute(queries.TIDY)
    except psycopg.Error as error:
        raise SourceError(told(error)) from None
    return changed


def unicode_name(domain: str) -> str:
    """How people write a folded domain; "" if just so, or if it has no such form."""
    if "xn--" not in domain:
        return ""
    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return ""


def _merge(connection: Connection, max_shrink: float) -> Changed:
    for statement in queries.WANTED:
        connection.execute(statement)
    ((total, gone),) = connection.execute(queries.LOSSES).fetchall()
    if total and gone > max_shrink * total:
        raise RefusedError(
            f"{gone} of {total} domains would go, more than max_shrink = {max_shrink:.0%} allows"
        )
    removed, _, added = (connection.execute(statement).rowcount for statement in queries.MERGE)
    return Changed(added, removed, total - removed + added)


def _blocks(records: Iterable[Record]) -> Iterable[str]:
    lines: list[str] = []
    for number, record in enumerate(records):
        domain, hop = record.domain, record.next_hop.translate(_ESCAPED)
        wide = "t" if record.include_subdomains else "f"
        lines.append(f"{number}\t{domain}\t{unicode_name(domain)}\t{hop}\t{wide}\n")
        if len(lines) == _BLOCK:
            yield "".join(lines)
            lines.clear()
    yield "".join(lines)
