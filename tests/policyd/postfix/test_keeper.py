"""What the keeper of Postfix's tables tells of trouble; a real one: tests/live/test_postfix_keeper.py."""

from pathlib import Path

import lmdb
import pytest

from mxweir.domains.match import digest
from mxweir.domains.reader import HERE
from mxweir.domains.record import FROM_FILE, Record
from mxweir_policyd.postfix.keeper import keep
from mxweir_policyd.postfix.report import Settings
from mxweir_policyd.relaydomains.replica import Replica


@pytest.mark.parametrize("spoiled", [b"", b"\x01no end", b"\x01\0\0\xff"])
def test_a_damaged_record_of_ours_is_told_and_tried_again(tmp_path: Path, spoiled: bytes) -> None:
    replica = Replica(tmp_path)
    replica.replace(FROM_FILE, {"a.example": Record("a.example", origins=FROM_FILE)}, 1.0)
    replica.close()
    with lmdb.open(str(tmp_path / HERE), subdir=False) as damaged, damaged.begin(write=True) as write:
        assert write.replace(digest("a.example"), spoiled)
    reports = keep(Settings(str(tmp_path), str(tmp_path / "tables"), False))
    (told, _), (again, _) = next(reports), next(reports)
    assert told is not None
    assert told.trouble.startswith("a stored domain is damaged and cannot be read: ")
    assert again is None
    assert not list((tmp_path / "tables").glob("*.lmdb"))
