"""Another process holds the lock of the domain table, such as a stopped import: nothing of ours waits."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mxweir_ops.lab.process import wait_until

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

SLACK = 30.0
AT_REST = 2
"""Threads: the loop's, and that of the pages, which has more while it answers."""

HOLDER = """
import lmdb, sys
table = lmdb.open(sys.argv[1], subdir=False, map_size=8 * 2**30, max_readers=512)
with table.begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locked(own: "Policyd") -> Iterator["Policyd"]:
    own.start()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(own.state / "domains.lmdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        yield own
    finally:
        holder.kill()
        holder.communicate()


def threads(daemon: "Policyd") -> int:
    return len(list(Path(f"/proc/{daemon.child.pid}/task").iterdir()))


def test_it_answers_and_stops_while_a_load_of_the_domains_file_waits_for_the_lock(locked: "Policyd") -> None:
    assert wait_until(lambda: threads(locked) == AT_REST, SLACK)
    locked.domains.write_text(locked.domains.read_text() + "another.example\n")
    assert wait_until(lambda: threads(locked) > AT_REST, SLACK)
    assert locked.ask() == "DUNNO"
    locked.child.send(signal.SIGTERM)
    assert locked.child.wait(SLACK) == 0


def test_it_starts_and_answers_by_the_table_of_last_time(locked: "Policyd") -> None:
    locked.child.send(signal.SIGTERM)
    assert locked.child.wait(SLACK) == 0
    locked.start()
    assert locked.ask(recipient="anna@example.org") == "DUNNO"
    # Until the file is loaded, which takes the lock, what the table lacks may be new in the file.
    assert locked.ask(recipient="dave@elsewhere.example").startswith("450")
    locked.child.send(signal.SIGTERM)
    assert locked.child.wait(SLACK) == 0
