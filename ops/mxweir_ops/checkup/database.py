"""PostgreSQL: can it be reached, is its schema ours, does each query find its index?"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg

from mxweir.config.sections import Postgres
from mxweir.domains.match import digest
from mxweir.domains.names import in_form, valid_domain
from mxweir.domains.record import Record
from mxweir_ops.checkup.finding import BAD, GOOD, NOTE, Finding
from mxweir_policyd.relaydomains.audit import audit
from mxweir_policyd.relaydomains.migrate import newest, version
from mxweir_policyd.relaydomains.queries import LAST, queries
from mxweir_policyd.relaydomains.sources.postgres import SourceError, connect, told

Connection = psycopg.Connection[Any]


def check(settings: Postgres) -> Iterator[Finding]:
    """Connect as the daemons do, and look; nothing is changed."""
    try:
        with closing(connect(settings, "mxweir doctor")) as connection:
            yield _server(connection)
            if settings.view:
                yield from _audit(connection, settings)
                yield _names(connection, settings.view)
            else:
                had = version(connection)
                yield _schema(had, newest())
                yield from _audit(connection, settings) if had else ()
    except SourceError as error:
        yield Finding(BAD, "PostgreSQL", str(error))


def _server(connection: Connection) -> Finding:
    info = connection.info
    where = f"PostgreSQL at {info.host}:{info.port}"
    if info.parameter_status("is_superuser") == "on":
        return Finding(NOTE, where, "connected as a superuser; roles.sql makes one that only reads")
    return Finding(GOOD, where, f"connected, version {info.parameter_status('server_version')}")


def _schema(had: int, known: int) -> Finding:
    subject = "PostgreSQL's schema"
    if not had:
        return Finding(BAD, subject, "is not there: mxweir domains init makes it")
    if had < known:
        return Finding(BAD, subject, f"is at {had}, this version has {known}: mxweir domains upgrade")
    if had > known:
        return Finding(BAD, subject, f"is at {had}, this version knows {known}: upgrade mxweir here too")
    return Finding(GOOD, subject, f"is at {had}")


def _audit(connection: Connection, settings: Postgres) -> Iterator[Finding]:
    asked = queries(settings.view).all()
    found = audit(connection, asked)
    for finding in found:
        yield Finding(BAD, f"PostgreSQL's index for the query {finding.query}", finding.what)
    if not found:
        yield Finding(GOOD, "PostgreSQL's indexes", f"serve all {len(asked)} queries")


def _names(connection: Connection, view: str) -> Finding:
    """Whether names and next hops of a view are in the form of ours; our own table holds no other."""
    asked = queries(view).fill
    try:
        rows = connection.execute(asked.text, {"after": b"", "end": LAST}, binary=True).fetchall()
    except psycopg.Error as error:
        raise SourceError(told(error)) from None
    subject = f"PostgreSQL's view {view}"
    records = [(key, Record.decode(raw)) for key, raw in rows]
    wrong = [record.domain for key, record in records if not _found(record.domain, key)]
    if wrong:
        what = f"{len(wrong)} of the first {len(rows)} rows are never found, such as {wrong[0]!r:.80}"
        return Finding(BAD, subject, f"{what}: name is a lower-case A-label, hash is its hash")
    if hops := [record.next_hop for _, record in records if not in_form(record)]:
        what = f"{len(hops)} of the first {len(rows)} rows have no next hop for transport(5)"
        return Finding(BAD, subject, f"{what}, such as {hops[0]!r:.80}: printable ASCII without spaces")
    return Finding(GOOD, subject, f"the first {len(rows)} domains are named as they are looked up")


def _found(name: str, key: bytes) -> bool:
    try:
        return valid_domain(name) == name and digest(name) == key
    except ValueError:
        return False
