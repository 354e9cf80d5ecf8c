"""What a host answers that has both tables."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir.domains.match import State, digest
from mxweir.domains.reader import POSTGRES, RECORDS, TableReader
from mxweir.domains.record import FROM_COMMAND, FROM_POSTGRES, Record
from mxweir_policyd.relaydomains.index import Index
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.replica import Replica


class Tables:
    """Both, with what a test puts in; LMDB lets a process open a file once, so writing closes what reads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.here = Replica(directory)
        self.index = Index(self.here, TableReader(directory / POSTGRES, RECORDS))

    def postgres(self, *records: Record, filled: bool = True, frozen: bool = False) -> None:
        self.index.close()
        mirror = Mirror(self.directory)
        mirror.apply([(digest(record.domain), record.encode()) for record in records], 0.2, seen=9.0)
        mirror.update(filled=filled)
        if frozen:
            mirror.freeze(1.0)
        mirror.close()
        self.index = Index(self.here, TableReader(self.directory / POSTGRES, RECORDS))


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    made = Tables(tmp_path)
    yield made
    made.index.close()
    made.here.close()


def record(name: str, enabled: bool = True) -> Record:
    return Record(name.removeprefix("."), "", name.startswith("."), FROM_POSTGRES, enabled)


def test_before_the_first_fill_only_postgresql_can_tell(tables: Tables) -> None:
    assert tables.index.find("example.org").state is State.UNCONFIRMED
    tables.postgres(record("example.org"), filled=False)
    assert tables.index.find("example.org").state is State.OURS
    assert tables.index.find("other.example").state is State.UNCONFIRMED


def test_what_is_given_on_this_host_is_ours_too(tables: Tables) -> None:
    tables.postgres(record(".example.org"))
    tables.here.add([Record("here.example")], FROM_COMMAND)
    found = [tables.index.find(name).state for name in ("a.example.org", "here.example", "other.example")]
    assert found == [State.OURS, State.OURS, State.UNCONFIRMED]
    assert (tables.index.count(), tables.index.followed()) == (2, 1)


def test_a_domain_that_is_switched_off_is_to_be_confirmed_whatever_is_said_here(tables: Tables) -> None:
    tables.postgres(record("example.org", enabled=False))
    tables.here.add([Record("example.org")], FROM_COMMAND)
    assert tables.index.find("example.org").state is State.UNCONFIRMED


def test_the_nearest_record_of_both_sides_decides(tables: Tables) -> None:
    tables.postgres(record(".off.example", enabled=False), record(".on.example"))
    hops = [Record("sub.off.example", "smtp:[a]"), Record("sub.on.example", "smtp:[b]")]
    tables.here.add([*hops, Record("on.example", "smtp:[c]", include_subdomains=True)], FROM_COMMAND)
    found = {name: tables.index.find(name) for name in ("sub.off.example", "off.example", "x.off.example")}
    assert [match.state for match in found.values()] == [State.OURS, State.UNCONFIRMED, State.UNCONFIRMED]
    asked = ("sub.off.example", "sub.on.example", "x.on.example", "on.example")
    assert [tables.index.find(name).next_hop for name in asked] == ["smtp:[a]", "smtp:[b]", "", ""]
    tables.here.pending = True
    assert tables.index.find("x.off.example").state is State.FAILED


def test_when_nobody_has_any_domain_the_check_is_off(tables: Tables) -> None:
    tables.postgres(filled=True)
    assert tables.index.find("example.org").state is State.OFF
    tables.postgres(record("one.example"))
    assert tables.index.find("example.org").state is State.UNCONFIRMED


def test_a_table_of_this_host_in_doubt_makes_what_it_lacks_doubtful(tables: Tables) -> None:
    tables.postgres(record("example.org"))
    (tables.directory / "domains.unsure").touch()
    tables.index.tick()
    assert tables.index.find("example.org").state is State.OURS
    assert tables.index.find("other.example").state is State.FAILED


def test_ours_is_remembered_until_something_changes(tables: Tables) -> None:
    tables.index.remember("example.org")
    assert tables.index.state("example.org") is State.OURS
    tables.index.forget()
    assert tables.index.state("example.org") is State.UNCONFIRMED
    tables.index.remember("example.org")
    tables.index.tick()
    assert tables.index.state("example.org") is State.UNCONFIRMED


def test_a_tick_tells_that_the_replica_has_changed_and_in_which_state_it_is(tables: Tables) -> None:
    tables.postgres(record("example.org"), frozen=True)
    assert not tables.index.tick()
    assert (tables.index.frozen, tables.index.progress.seen) == (True, 9.0)


def test_what_is_remembered_is_bounded(tables: Tables) -> None:
    for number in range(20_000):
        tables.index.remember(f"d{number}.example")
    assert len(tables.index.ours) <= 16_384
