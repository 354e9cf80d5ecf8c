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
from zlib import crc32

import lmdb

from mxweir.domains.chunks import CHUNKS, NOTHING, PREFIX, look_up, name_of, number_of, wide
from mxweir.domains.match import State, digest, find
from mxweir.domains.record import DISABLED

FLAGS = b"flags"
"""The database within the replica."""

HEAD = PREFIX + b"head"
"""The key that says that the flags of all domains are there."""

head = struct.Struct(">IQI")
"""How many chunks there are, how many domains that include their subdomains, the XOR of all checksums."""

_CHUNKS = struct.Struct(">I")
"""The begin of it, which it has had in all times."""

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
        told = read.get(HEAD, b"")
        self._there = len(told) == head.size
        self._chunks, self._wide, _ = head.unpack(told) if self._there else (0, 0, 0)
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
    return int(read.stat()["entries"]) - (0 if told is None else 1 + _CHUNKS.unpack_from(told)[0])


def checksum(name: bytes, chunk: bytes) -> int:
    """What of the head's last figure is of this chunk."""
    return crc32(chunk, crc32(name))


def whole(read: "lmdb.Transaction[bytes]", database: Any) -> bool:
    """Whether the flags are there as they were written: 0.3 s for ten million domains. Raises lmdb.Error."""
    there, wides, total = 0, 0, 0
    for name in map(name_of, range(CHUNKS)):
        if (chunk := read.get(name, db=database)) is not None:
            there, wides, total = there + 1, wides + wide(chunk), total ^ checksum(name, chunk)
    return read.get(HEAD, db=database) == head.pack(there, wides, total)


def is_record(item: tuple[bytes, bytes]) -> bool:
    """Whether what stands in the table of this host is a record, and nothing of the flags."""
    return len(item[0]) == _HASH
