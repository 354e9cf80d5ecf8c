"""The replica of PostgreSQL's table on this host: what its one writer does to it.

Each change is one transaction of LMDB, and says in the same transaction how far
it has come (`Progress`): after a kill at any instant, or on a full disk, the
next writer goes on from there. What would take a domain away first goes to a
list of losses; they are carried out together, unless they are more than
`max_shrink` of the table: then they are held there until they come back or an
operator accepts them.

    records   hash → stored record        losses   hash → what it would become, or nothing
    meta      "progress" → JSON           "frozen" → since when it is pinned
    journal   running number → a domain that changed, for who keeps another table by this one
    flags     those of all records (`mxweir.domains.flags`), for who asks no more of them

Commands may change it beside the writer: LMDB lets one change follow the other.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from mxweir.domains.flags import FLAGS, whole
from mxweir.domains.reader import DATABASES, FROZEN, JOURNAL, META, POSTGRES, PROGRESS, RECORDS
from mxweir.domains.record import DISABLED, Record
from mxweir_policyd.relaydomains.flagging import Flagging
from mxweir_policyd.relaydomains.journaling import Journaling
from mxweir_policyd.relaydomains.progress import Point, Progress
from mxweir_policyd.relaydomains.tablefile import (
    DamagedError,
    Overwritten,
    ReplicaError,
    free_places,
    open_table,
    put_aside,
    writing,
)

_LOSSES = b"losses"

Item = tuple[bytes, bytes | None]
"""A hash, and the stored record that PostgreSQL has for it now; None if it has none."""


class Applied(NamedTuple):
    """What a change did; `frozen` means that it did nothing, for the replica is pinned."""

    changed: int = 0
    lost: int = 0
    held: int = 0
    frozen: bool = False


class _Change(NamedTuple):
    """One transaction, and what is kept beside the records in it."""

    write: "lmdb.Transaction[bytes]"
    flags: Flagging
    journal: Journaling


class Mirror:
    """The replica, opened to be written. Raises ReplicaError, as does every method.

    With `mend`, a damaged one is put aside and a new one begun, for PostgreSQL
    has it all. That is for the one process that follows PostgreSQL.
    """

    def __init__(self, directory: Path, mend: bool = False) -> None:
        self.path = directory / POSTGRES
        self.put_aside: Path | None = None
        """Where the file is that was found damaged when this one was opened."""
        try:
            self._environment = open_table(self.path, DATABASES)
        except DamagedError:
            if not mend:
                raise
            self.put_aside = put_aside(self.path)
            self._environment = open_table(self.path, DATABASES)
        self._inode = self.path.stat().st_ino
        self._overwritten = Overwritten()
        with self._writing() as write:
            self._records, self._meta, self._losses, self._journal, self._flags = (
                self._environment.open_db(name, write) for name in (RECORDS, META, _LOSSES, JOURNAL, FLAGS)
            )
            anew = not whole(write, self._flags)
            Flagging(write, self._records, self._flags, anew).finish()

    def close(self) -> None:
        """Give the file back."""
        self._environment.close()

    def check_place(self) -> None:
        """Raise ReplicaError if the file is not that which readers find, as when a backup was restored.

        Call it every second or so: it frees the places of readers that were killed, too.
        """
        free_places(self._environment)
        try:
            if self.path.stat().st_ino == self._inode:
                if self._overwritten.look(self._environment):
                    kept = put_aside(self.path)
                    raise ReplicaError(f"{self.path}: was overwritten; kept as {kept}, and filled anew")
                return
        except FileNotFoundError:
            pass
        raise ReplicaError(f"{self.path}: was removed or replaced; it is opened anew")

    def progress(self) -> Progress:
        """How far it has come."""
        with self._environment.begin() as read:
            return self._progress(read)

    def frozen(self) -> bool:
        """Whether it is pinned by hand."""
        with self._environment.begin() as read:
            return read.get(FROZEN, db=self._meta) is not None

    def freeze(self, now: float) -> None:
        """Pin it: nothing changes it until `thaw`; `now` in seconds since the epoch."""
        with self._writing() as write:
            write.put(FROZEN, json.dumps(now).encode(), db=self._meta, overwrite=False)

    def thaw(self) -> bool:
        """Let it change again; False if it was not pinned."""
        with self._writing() as write:
            return bool(write.delete(FROZEN, db=self._meta))

    def update(self, **fields: Any) -> Progress:
        """Change fields of the progress, and nothing else."""
        with self._writing() as write:
            return self._advance(write, **fields)

    def begin(self, point: Point) -> Progress:
        """Start over with a first fill; changes behind `point` come after it."""
        with self._changing() as (write, flags, journal):
            for database in (self._records, self._losses):
                write.drop(database, delete=False)
            flags.clear()
            journal.note("")
            return self._advance(write, **asdict(Progress(point=point)))

    def fill(self, batch: list[tuple[bytes, bytes]]) -> Progress:
        """Take the next records of the first fill, in the order of their hashes."""
        with self._changing() as (write, flags, _):
            with write.cursor(self._records) as cursor:
                cursor.putmulti(batch, append=True)
            for key, raw in batch:
                flags.note(key, raw)
            live = self._progress(write).live + sum(map(_alive, (raw for _, raw in batch)))
            return self._advance(write, cursor=batch[-1][0].hex(), live=live, baseline=live)

    def apply(self, items: Iterable[Item], max_shrink: float, settle: bool = True, **fields: Any) -> Applied:
        """Let these domains be what PostgreSQL says; `fields` of the progress hold from then on.

        Losses are only carried out (or held) when it is time to `settle`: behind
        the last batch of what was read in one go.
        """
        with self._changing() as change:
            write = change.write
            if write.get(FROZEN, db=self._meta) is not None:
                return Applied(frozen=True)
            changed = gained = 0
            losses = int(write.stat(self._losses)["entries"])  # hardly ever any
            for key, raw in items:
                old = write.get(key, db=self._records)
                if _alive(old) and not _alive(raw):
                    losses += write.put(key, raw or b"", db=self._losses)
                    continue
                if losses:
                    write.delete(key, db=self._losses)
                if raw != old:
                    changed, gained = changed + 1, gained + (_alive(raw) and not _alive(old))
                    self._put(change, key, raw)
            before = self._progress(write)
            live = before.live + gained
            self._advance(write, live=live, baseline=max(before.baseline, live), **fields)
            lost = self._settle(change, max_shrink) if settle else 0
            return Applied(changed, lost, self._progress(write).held)

    def accept(self) -> int:
        """Carry out the losses that are held, however many; returns their number."""
        with self._changing() as change:
            lost = self._settle(change, 1.0)
            self._advance(change.write, baseline=self._progress(change.write).live)
            return lost

    def agrees(self, after: bytes, end: bytes, checksum: bytes) -> bool:
        """Whether what is stored behind `after`, up to and with `end`, has this SHA-256."""
        found = hashlib.sha256()
        for key, raw in self._between(after, end):
            found.update(key)
            found.update(raw)
        return found.digest() == checksum

    def keys(self, after: bytes, end: bytes) -> set[bytes]:
        """The hashes behind `after`, up to and with `end`."""
        return {key for key, _ in self._between(after, end)}

    def spare(self, after: bytes, end: bytes) -> None:
        """PostgreSQL has all that is stored behind `after`, up to and with `end`: nothing of it gets lost."""
        if spared := [key for key, _ in self._between(after, end, self._losses)]:
            with self._writing() as write:
                for key in spared:
                    write.delete(key, db=self._losses)

    def _between(self, after: bytes, end: bytes, database: Any = None) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.begin() as read, read.cursor(database or self._records) as cursor:
            there = cursor.set_range(after)
            if there and cursor.key() == after:
                there = cursor.next()
            if there:
                yield from itertools.takewhile(lambda item: item[0] <= end, cursor.iternext())

    def _settle(self, change: _Change, max_shrink: float) -> int:
        """Carry the losses out, or hold all of them."""
        write = change.write
        now = self._progress(write)
        losses = int(write.stat(self._losses)["entries"])
        if now.live - losses < now.baseline * (1 - max_shrink):
            self._advance(write, held=losses)
            return 0
        for key, raw in write.cursor(self._losses):
            self._put(change, key, raw or None)
        write.drop(self._losses, delete=False)
        self._advance(write, live=now.live - losses, held=0)
        return losses

    def _put(self, change: _Change, key: bytes, raw: bytes | None) -> None:
        write, flags, journal = change
        flags.note(key, raw)
        stored = raw or write.get(key, db=self._records)
        if stored is not None:
            journal.note(_name(stored))
        if raw is None:
            write.delete(key, db=self._records)
        else:
            write.put(key, raw, db=self._records)

    def _progress(self, transaction: "lmdb.Transaction[bytes]") -> Progress:
        return Progress.decode(transaction.get(PROGRESS, db=self._meta))

    def _advance(self, write: "lmdb.Transaction[bytes]", **fields: Any) -> Progress:
        progress = replace(self._progress(write), **fields)
        write.put(PROGRESS, progress.encode(), db=self._meta)
        return progress

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_Change]:
        with self._writing() as write:
            flags, journal = Flagging(write, self._records, self._flags), Journaling(write, self._journal)
            yield _Change(write, flags, journal)
            flags.finish()
            journal.finish()

    def _writing(self) -> contextlib.AbstractContextManager["lmdb.Transaction[bytes]"]:
        return writing(self._environment, self.path)


def _alive(raw: bytes | None) -> bool:
    return raw is not None and len(raw) > 0 and not raw[0] & DISABLED


def _name(stored: bytes) -> str:
    """The domain of a stored record; "" of one that was damaged on the disk: it goes like any other."""
    try:
        return Record.decode(stored).domain
    except (ValueError, IndexError):
        return ""
