"""Make the schema of the relay domains in PostgreSQL, or bring it up to date.

Migrations are plain SQL in `schema/`, numbered; which ones a database has had is
in its table `mxweir.migrations`. All that are missing are applied in one
transaction under an advisory lock: two hosts that do it at once do it once, and
one that fails halfway leaves nothing.
"""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import psycopg

from mxweir_policyd.relaydomains.sources.postgres import SourceError, told

_LOCK = 0x6D78_7765_6972  # "mxweir"

_HISTORY = """
CREATE SCHEMA IF NOT EXISTS mxweir;
CREATE TABLE IF NOT EXISTS mxweir.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied timestamptz NOT NULL DEFAULT now()
)
"""


class Migration(NamedTuple):
    """One step; numbers begin at 1 and have no gap."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All that this version brings, in order."""
    return sorted(_read(), key=lambda migration: migration.number)


def newest() -> int:
    """The number of the last migration that this version brings."""
    return migrations()[-1].number


def version(connection: psycopg.Connection[Any]) -> int:
    """The number of the last migration that a database has had; 0 before the first. Raises SourceError."""
    try:
        row = connection.execute("SELECT max(number) FROM mxweir.migrations").fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return 0
    except psycopg.Error as error:
        raise SourceError(told(error)) from None
    return row[0] or 0 if row else 0


def migrate(connection: psycopg.Connection[Any], create: bool) -> list[Migration]:
    """Apply what is missing, and return that; the connection is in autocommit.

    Raises SourceError: without `create`, for a database that has had none; for
    one that has had more than this version knows.
    """
    try:
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            had = _had(connection, create)
            missing = [migration for migration in migrations() if migration.number > had]
            for migration in missing:
                # A constant of ours, several statements at once.
                connection.execute(migration.sql.encode())
                connection.execute(
                    "INSERT INTO mxweir.migrations (number, name) VALUES (%s, %s)", migration[:2]
                )
    except psycopg.Error as error:
        raise SourceError(told(error)) from None
    return missing


def _had(connection: psycopg.Connection[Any], create: bool) -> int:
    there = connection.execute("SELECT to_regclass('mxweir.migrations')::text").fetchone() != (None,)
    if not there and not create:
        raise SourceError("there is no schema of mxweir in this database: mxweir domains init makes it")
    if not there:
        connection.execute(_HISTORY)
    had = version(connection)
    if had > newest():
        raise SourceError(
            f"the schema is of a newer mxweir: it has migration {had}, this version knows {newest()}"
        )
    return had


def _read() -> Iterator[Migration]:
    for file in (files(__package__) / "schema").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        yield Migration(int(number), name, file.read_text(encoding="utf-8"))
