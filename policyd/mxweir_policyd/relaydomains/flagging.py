"""Keep the flags of a table's domains by its records, in the transaction that changes these."""

import itertools
from typing import Any

import lmdb

from mxweir.domains.chunks import CHUNKS, PREFIX, changed, name_of, number_of, wide
from mxweir.domains.flags import HEAD, checksum, head, is_record

_MOST = 100_000
"""Changes that wait to be written chunk by chunk: some 20 MB; a sorted import leaves few chunks half done."""

_PIECE = 20_000
"""Records that are read at once."""


class Flagging:
    """What one transaction changes; `finish` it before its end.

    `records` and `database` are where the records and the flags are. Where no flags
    were ever made, or `anew`, they are made at once, of all records: a second for each
    million.
    """

    def __init__(
        self, write: "lmdb.Transaction[bytes]", records: Any, database: Any, anew: bool = False
    ) -> None:
        self._write = write
        self._database = database
        self._waiting: dict[bytes, int] = {}
        told = write.get(HEAD, db=database)
        self._chunks = self._wide = self._sum = 0
        if told is not None and len(told) == head.size and not anew:
            self._chunks, self._wide, self._sum = head.unpack(told)
            return
        for name in (HEAD, *map(name_of, range(CHUNKS if told is not None or anew else 0))):
            write.delete(name, db=database)
        self._make(records)

    def note(self, key: bytes, raw: bytes | None) -> None:
        """The record of a SHA-256 becomes this; None for none."""
        self._waiting[key] = raw[0] if raw else 0
        if len(self._waiting) >= _MOST:
            self._flush()

    def clear(self) -> None:
        """There are no records any more; nothing else is in the database."""
        self._write.drop(self._database, delete=False)
        self._waiting.clear()
        self._chunks = self._wide = self._sum = 0
        self._tell()

    def finish(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        changes = sorted(self._waiting.items())
        for number, group in itertools.groupby(changes, lambda item: number_of(item[0])):
            name = name_of(number)
            former = self._write.get(name, b"", db=self._database)
            chunk = changed(former, dict(group))
            self._chunks += bool(chunk) - bool(former)
            self._wide += wide(chunk) - wide(former)
            if former:
                self._sum ^= checksum(name, former)
            if chunk:
                self._sum ^= checksum(name, chunk)
                self._write.put(name, chunk, db=self._database)
            elif former:
                self._write.delete(name, db=self._database)
        self._waiting.clear()
        self._tell()

    def _tell(self) -> None:
        # Not below 0, which a damaged chunk could make of them: the next `whole` finds that.
        figures = max(0, self._chunks), max(0, self._wide), self._sum
        self._write.put(HEAD, head.pack(*figures), db=self._database)

    def _make(self, records: Any) -> None:
        after = PREFIX
        while piece := self._piece(records, after):
            for key, raw in piece:
                self.note(key, raw)
            after = piece[-1][0]

    def _piece(self, records: Any, after: bytes) -> list[tuple[bytes, bytes]]:
        """The next records; read at once, for the flags may stand among them."""
        with self._write.cursor(records) as cursor:
            if not cursor.set_range(after + b"\0"):
                return []
            return list(itertools.islice(filter(is_record, cursor.iternext()), _PIECE))
