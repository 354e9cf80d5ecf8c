"""Ask the flags of a table's domains (`mxweir.domains.chunks`): most who ask need no record.

They stand in the same file as the records and change in the same transaction:
in a database of their own in the replica, among the records in the table of
this host, whose only database it is. A table that was written before there were
any has none until a writer makes them; then the records answer.

Where the chunks are in memory is kept from lookup to lookup, for as long as the
table is at the same transaction: then no page can have changed, and the search
for it would find it there again.
"""

import struct
from pathlib import Path
from typing import Any

import lmdb

from mxweir.domains.chunks import CHUNKS, NOTHING, PREFIX, look_up, name_of, number_of
from mxweir.domains.match import State, digest, find
from mxweir.domains.record import DISABLED

FLAGS = b"flags"
"""The database within the replica."""

HEAD = PREFIX + b"head"
"""The key that says that the flags of all domains are there."""

head = struct.Struct(">IQ")
"""How many chunks there are, and how many domains that include their subdomains."""

_HASH = 32


class Flags:
    """Those of one open table. With the table closed, it must not be asked any more."""

    def __init__(self) -> None:
        self._seen = -1
        self._written: tuple[int, int] | None = None
        self._there = False
        self._wide = self._chunks = 0
        self._known: list[memoryview | None] = []

    def state(self, read: "lmdb.Transaction[memoryview]", domain: str) -> State | None:
        """Is the folded domain ours? OFF: there is none at all; None: there are no flags. Raises lmdb.Error.

        `read` is a transaction with buffers on the database that has them.
        """
        if read.id() != self._seen:
            self._look(read)
        if not self._there:
            return None
        flags = self._get(read, digest(domain))
        if flags:
            return State.NOT_OURS if flags & DISABLED else State.OURS
        if self._wide:
            return find(domain, lambda key: self._stored(read, key)).state
        return State.NOT_OURS if self._chunks else State.OFF

    def tick(self, path: Path) -> None:
        """Call it every second or so with the table's path.

        A file may be written over the open one, as by cp, that says to be at the same transaction:
        whenever the file has another time, everything is looked for again.
        """
        former, self._written = self._written, _written(path)
        if self._written != former:
            self._seen = -1

    def _get(self, read: "lmdb.Transaction[memoryview]", key: bytes) -> int:
        number = number_of(key)
        chunk = self._known[number]
        if chunk is None:
            found = read.get(name_of(number))
            chunk = self._known[number] = NOTHING if found is None else found
        return look_up(chunk, key)

    def _stored(self, read: "lmdb.Transaction[memoryview]", key: bytes) -> bytes | None:
        flags = self._get(read, key)
        return bytes((flags,)) if flags else None

    def _look(self, read: "lmdb.Transaction[memoryview]") -> None:
        """After each change: pages may have been written anew."""
        told = read.get(HEAD)
        self._there = told is not None
        self._chunks, self._wide = (0, 0) if told is None else head.unpack(told)
        self._known = [None] * CHUNKS
        self._seen = read.id()


def _written(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def count(read: "lmdb.Transaction[Any]") -> int:
    """The records in the table of this host, among which the flags stand."""
    told = read.get(HEAD)
    return int(read.stat()["entries"]) - (0 if told is None else 1 + head.unpack(told)[0])


def is_record(item: tuple[bytes, bytes]) -> bool:
    """Whether what stands in the table of this host is a record, and nothing of the flags."""
    return len(item[0]) == _HASH
