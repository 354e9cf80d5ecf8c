"""The tables as another process reads them."""

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from mxweir.domains.match import NOT_OURS, State, digest
from mxweir.domains.reader import HERE, MAP_SIZE, POSTGRES, RECORDS, DomainReader
from mxweir.domains.record import FROM_FILE, FROM_POSTGRES, Record


def write(path: Path, *records: Record, name: bytes | None = None) -> None:
    environment = lmdb.open(str(path), subdir=False, map_size=2**24, max_dbs=2)
    records_db = environment.open_db(name) if name else None
    with environment.begin(write=True, db=records_db) as transaction:
        for record in records:
            transaction.put(digest(record.domain), record.encode())
    environment.close()


def truth(domain: str, *rest: object) -> Record:
    return Record(domain, "", True, FROM_POSTGRES, True, "tenant-a")._replace(**dict(rest))  # type: ignore[arg-type]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[DomainReader]:
    opened = DomainReader(tmp_path)
    yield opened
    opened.close()


def test_without_any_table_no_domain_is_known(reader: DomainReader) -> None:
    assert reader.find("example.org") == NOT_OURS
    assert (reader.postgres.there, reader.here.there) == (False, False)
    assert (reader.postgres.count(), reader.here.count()) == (0, 0)


def test_a_table_that_comes_later_is_read_from_the_next_tick(tmp_path: Path, reader: DomainReader) -> None:
    write(tmp_path / POSTGRES, truth("example.org"), name=RECORDS)
    write(tmp_path / HERE, Record("here.example", origins=FROM_FILE))
    reader.tick()
    assert reader.find("example.org").tenant == "tenant-a"
    assert reader.find("a.b.example.org").by == "example.org"
    assert reader.find("here.example").state is State.OURS
    assert (reader.find("here.example").tenant, reader.postgres.count()) == ("", 1)


def test_a_table_that_replaces_another_is_read_from_the_next_tick(
    tmp_path: Path, reader: DomainReader
) -> None:
    write(tmp_path / HERE, Record("old.example", origins=FROM_FILE))
    reader.tick()
    assert reader.find("old.example").state is State.OURS
    write(tmp_path / "new", Record("new.example", origins=FROM_FILE))
    (tmp_path / "new").rename(tmp_path / HERE)
    reader.tick()
    assert reader.find("old.example") == NOT_OURS
    assert reader.find("new.example").state is State.OURS


def test_a_table_in_which_a_lookup_failed_is_opened_anew_at_the_next_tick(
    tmp_path: Path, reader: DomainReader
) -> None:
    write(tmp_path / HERE, Record("a.example", origins=FROM_FILE))
    reader.tick()
    assert reader.here._environment is not None
    reader.here._environment.close()
    assert (reader.here.find("a.example").state, reader.here.failed) == (State.FAILED, True)
    reader.tick()
    assert (reader.here.find("a.example").state, reader.here.failed) == (State.OURS, False)


def test_a_domain_that_postgresql_switched_off_is_not_ours_whatever_is_said_here(
    tmp_path: Path, reader: DomainReader
) -> None:
    write(tmp_path / POSTGRES, truth("example.org", ("enabled", False)), name=RECORDS)
    write(tmp_path / HERE, Record("example.org", origins=FROM_FILE))
    reader.tick()
    assert reader.find("example.org").state is State.NOT_OURS
    assert reader.find("below.example.org").state is State.NOT_OURS


def test_a_table_not_yet_filled_by_its_maker_is_looked_at_again(tmp_path: Path, reader: DomainReader) -> None:
    write(tmp_path / POSTGRES)
    reader.tick()
    assert not reader.postgres.there
    write(tmp_path / POSTGRES, truth("example.org"), name=RECORDS)
    reader.tick()
    assert reader.find("example.org").state is State.OURS


@pytest.mark.parametrize("content", [b"", b"no table at all", bytes(64 * 1024)])
def test_what_is_no_table_is_told_and_answers_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / POSTGRES).write_bytes(content)
    reader = DomainReader(tmp_path)
    assert reader.find("example.org") == NOT_OURS
    assert (reader.postgres.there, reader.postgres.failed) == (False, True)
    reader.close()


def test_a_table_cut_off_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path / POSTGRES, *(truth(f"d{n}.example") for n in range(5000)), name=RECORDS)
    os.truncate(tmp_path / POSTGRES, (tmp_path / POSTGRES).stat().st_size // 2)
    reader = DomainReader(tmp_path)
    assert (reader.postgres.there, reader.postgres.failed) == (False, True)
    reader.close()


def test_reading_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / HERE, Record("here.example", origins=FROM_FILE))
    before = (tmp_path / HERE).read_bytes()
    with pytest.raises(lmdb.Error):
        lmdb.open(str(tmp_path / HERE), subdir=False, readonly=True, map_size=MAP_SIZE).begin(write=True)
    assert (tmp_path / HERE).read_bytes() == before
