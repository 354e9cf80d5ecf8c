"""A daemon follows PostgreSQL: what is changed there is in force here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir_ops.lab.host import Host, add, prepare, remove
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until


@pytest.fixture
def dsn(database: str) -> str:
    """A database with three domains of ours."""
    prepare(database, "one.example", "two.example", "three.example")
    return database


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


@pytest.fixture
def host(directory: Path, dsn: str) -> Iterator[Host]:
    with Host(directory, dsn, 'poll = "1h"', 'max_shrink = "50%"') as host:
        assert host.follows()
        yield host


def test_a_known_domain_passes_and_one_that_postgresql_has_not_is_refused(host: Host) -> None:
    assert host.ask("one.example") == "DUNNO"
    assert host.ask("foreign.example") == "550"
    assert host.metric('mxweir_relay_confirmations_total{outcome="unknown"}') == 1
    assert host.ask("foreign.example") == "550"
    assert host.metric('mxweir_relay_confirmations_total{outcome="remembered"}') == 1


def test_a_domain_that_is_added_is_ours_and_one_that_is_removed_is_not(host: Host, dsn: str) -> None:
    assert host.ask("new.example") == "550"
    add(dsn, "new.example")
    assert host.comes_to("DUNNO", "new.example", 5.0)
    remove(dsn, "one.example")
    assert host.comes_to("550", "one.example", 5.0)
    assert host.metric("mxweir_relay_replica_lag_seconds") < 5.0
    assert wait_until(lambda: host.metric("mxweir_relay_domains") == 3.0, 10.0)
