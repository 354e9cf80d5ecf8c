"""A database with the schema, and what most tests do with it."""

from collections.abc import Iterator

import psycopg
import pytest

from mxweir.config.sections import Postgres
from mxweir_policyd.relaydomains.migrate import migrate
from mxweir_policyd.relaydomains.sources.postgres import Source


@pytest.fixture
def settings(database: str) -> Postgres:
    """The configuration for a database with the schema."""
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, create=True)
    return Postgres(dsn=database)


@pytest.fixture
def connection(settings: Postgres) -> Iterator[psycopg.Connection]:
    """A connection of the owner, in autocommit."""
    with psycopg.connect(settings.dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def source(settings: Postgres) -> Iterator[Source]:
    """What a follower has."""
    source = Source(settings)
    yield source
    source.close()
