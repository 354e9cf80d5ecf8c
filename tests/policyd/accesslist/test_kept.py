from math import inf
from pathlib import Path

import pytest

from mxweir_policyd.accesslist import kept
from mxweir_policyd.accesslist.kept import DamagedError, Kept, Writer
from mxweir_policyd.accesslist.record import Record

RECORDS = [
    Record("sender_org", "a.example", "block", "no more", 1_900_000_000.5, "jörg@mx1", 1, 3),
    Record("client_network", "192.0.2.0/24", "allow", "", inf, "root@mx2", 4, 6),
    Record("sender", "<>", "", made=7, version=9),
]
HELD = Kept("7", 9, RECORDS)


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    """A file that holds the records."""
    path = kept.list_path(tmp_path)
    kept.write(path, HELD)
    return path


def test_what_was_written_is_read(file: Path) -> None:
    assert kept.read(file) == HELD
    kept.write(file, Kept("", 10, []))
    assert kept.read(file) == Kept("", 10, [])


def test_nobody_but_the_owner_may_read_it(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_cut_anywhere_is_recognised(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            kept.read(file)


def test_a_file_with_any_bit_changed_is_recognised(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(0, len(whole) - 2, 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DamagedError):
            kept.read(file)


def test_a_file_of_another_format_is_told_as_one(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"access 1", b"access 2"))
    with pytest.raises(DamagedError, match="another format: 'mxweir access 2'"):
        kept.read(file)


def test_no_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kept.read(kept.list_path(tmp_path))


def test_what_cannot_be_written_leaves_the_former_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.write(file, Kept("", 10, []))
    assert kept.read(file).version == 9
    assert sorted(path.name for path in file.parent.iterdir()) == ["access.list"]


def test_what_a_killed_writer_left_behind_is_no_hindrance(file: Path) -> None:
    file.with_suffix(".new").write_text("half")
    kept.write(file, HELD._replace(version=10))
    assert kept.read(file).version == 10


def test_one_alone_writes_until_it_lets_go(file: Path) -> None:
    first, second = Writer(file), Writer(file)
    assert first.chosen()
    assert first.chosen()
    assert not second.chosen()
    first.close()
    assert second.chosen()
    second.write(HELD._replace(version=11))
    assert kept.read(file).version == 11
    second.close()
