import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir.domains.record import FROM_COMMAND, Record
from mxweir.events import Notice, Trouble
from mxweir.testing import Recorder
from mxweir_policyd.refresh import DomainsFile
from mxweir_policyd.relaydomains.replica import Replica


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    opened = Replica(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "domains"


def load(file: DomainsFile, replica: Replica) -> list[Notice | Trouble]:
    """What loading it tells."""
    recorder = Recorder()
    file.load(replica, recorder)
    assert all(isinstance(event, Notice | Trouble) for event in recorder.events)
    return [event for event in recorder.events if isinstance(event, Notice | Trouble)]


def names(replica: Replica) -> set[str]:
    return {record.domain for record in replica.records()}


def test_a_file_is_brought_into_the_table_and_said_to_be(path: Path, replica: Replica) -> None:
    path.write_text("example.org\nexample.net\n")
    (told,) = load(DomainsFile(path, 0.2), replica)
    assert isinstance(told, Notice)
    assert (told.what, told.fields) == (
        "domains loaded",
        {"file": str(path), "added": 2, "removed": 0, "total": 2},
    )
    assert names(replica) == {"example.org", "example.net"}


def test_a_file_has_changed_when_it_is_another_or_has_another_time_or_size(
    path: Path, replica: Replica
) -> None:
    path.write_text("example.org\n")
    file = DomainsFile(path, 0.2)
    said = [file.changed()]
    load(file, replica)
    said.append(file.changed())
    path.write_text("example.org\nexample.net\n")
    said.append(file.changed())
    load(file, replica)
    status = path.stat()
    path.write_text("example.org\nexample.com\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    said.append(file.changed())
    load(file, replica)
    path.with_suffix(".new").write_text("example.org\nexample.net\n")
    os.utime(path.with_suffix(".new"), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    path.with_suffix(".new").rename(path)
    said.append(file.changed())
    load(file, replica)
    said.append(file.changed())
    path.unlink()
    said.append(file.changed())
    load(file, replica)
    said.append(file.changed())
    assert said == [True, False, True, True, True, False, True, False]


def test_a_file_that_is_not_there_changes_nothing(path: Path, replica: Replica) -> None:
    replica.add([Record("example.org")], FROM_COMMAND)
    path.write_text("example.net\n")
    file = DomainsFile(path, 0.2)
    load(file, replica)
    path.unlink()
    (told,) = load(file, replica)
    assert told.what == "domains file not there"
    assert names(replica) == {"example.org", "example.net"}


def test_bad_lines_are_told_by_number_and_the_good_ones_kept(path: Path, replica: Replica) -> None:
    path.write_bytes(b"example.org\nrubbish!\n\xff\nexample.net\n")
    first, second, _ = load(DomainsFile(path, 0.2), replica)
    assert isinstance(first, Notice)
    assert isinstance(second, Notice)
    assert first.fields == {
        "line": 2,
        "why": "'rubbish!' is no domain name: '!' is no letter, digit, - or _",
    }
    assert second.fields == {"line": 3, "why": "not valid UTF-8"}
    assert names(replica) == {"example.org", "example.net"}


def test_a_thousand_bad_lines_are_ten_lines_and_a_sum(path: Path, replica: Replica) -> None:
    path.write_text("rubbish!\n" * 1000 + "example.org\n")
    told = load(DomainsFile(path, 0.2), replica)
    assert len(told) == 12
    assert isinstance(told[10], Notice)
    assert told[10].fields == {"count": 1000}


def test_a_file_that_would_shrink_the_table_too_much_is_refused_with_what_to_do(
    path: Path, replica: Replica
) -> None:
    path.write_text("".join(f"d{number}.example\n" for number in range(10)))
    file = DomainsFile(path, 0.2)
    load(file, replica)
    path.write_text("d0.example\n")
    (told,) = load(file, replica)
    assert isinstance(told, Trouble)
    assert told == Trouble(
        "domains file refused",
        f"{path}: 9 of 10 domains would go, more than max_shrink = 20% allows;"
        " if that is meant, run: mxweir domains verify --accept",
        "error",
    )
    assert replica.count() == 10
    assert not file.changed()


def test_a_file_that_cannot_be_read_keeps_the_domains_and_is_told(path: Path, replica: Replica) -> None:
    path.write_text("example.org\n")
    file = DomainsFile(path, 0.2)
    load(file, replica)
    path.unlink()
    path.mkdir()
    (told,) = load(file, replica)
    assert (told.what, names(replica)) == ("domains file not loaded", {"example.org"})


def test_a_table_that_cannot_be_changed_is_told(path: Path, replica: Replica) -> None:
    path.write_text("example.org\n")
    replica.close()
    (told,) = load(DomainsFile(path, 0.2), replica)
    assert isinstance(told, Trouble)
    assert (told.what, told.level) == ("domains file not loaded", "error")


def test_a_file_that_chmod_has_made_readable_has_changed(path: Path, replica: Replica) -> None:
    path.write_text("example.org\n")
    path.chmod(0)
    file = DomainsFile(path, 0.2)
    load(file, replica)
    assert not file.changed()
    time.sleep(0.02)  # the kernel's clock for files turns every few milliseconds
    path.chmod(0o644)
    assert file.changed()
