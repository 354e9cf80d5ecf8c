"""The table of relay domains on this host: an LMDB file, mapped into every process that asks.

LMDB writes by copy and one final page: killed at any instant, or out of disk,
it has the old content or the new, never half. Readers take no lock and see a
change at their next lookup, whichever process made it; only "ours" may be
remembered, for a second.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import lmdb

from mxweir.domains.flags import HEAD, Flags, count, is_record, whole
from mxweir.domains.match import NOT_OURS, Match, State, digest, find
from mxweir.domains.reader import HERE
from mxweir.domains.record import FROM_COMMAND, FROM_FILE, Record, said, unsaid
from mxweir_policyd.relaydomains.flagging import Flagging
from mxweir_policyd.relaydomains.tablefile import (
    DamagedError,
    Overwritten,
    ReplicaError,
    free_places,
    open_table,
    put_aside,
    writing,
)

_REMEMBERED = 16_384

_SUCCESSOR = "domains.new"

Identity = tuple[int, ...] | None
"""Which file is at a place, and in which state; None for no file."""


class ShrinkError(ReplicaError):
    """A change that would take away more than `max_shrink` of the table was refused."""


class Changed(NamedTuple):
    """What a change did."""

    added: int
    removed: int
    total: int


class Replica:
    """The table; open it once a process.

    One that is damaged is put aside with `mend`, and a new one begun. That is for
    the daemon as it starts: done by a command, the daemon would go on with the
    old file, which nobody else sees any more. Raises ReplicaError.
    """

    def __init__(self, directory: Path, mend: bool = False, name: str = HERE) -> None:
        self.path = directory / name
        self.put_aside: Path | None = None
        """Where the table is that was found damaged when this one was opened."""
        self._marker = self.path.with_suffix(".unsure")
        self._mend = mend
        self._environment = self._open()
        self._flags = Flags()
        self._overwritten = Overwritten()
        self._inode = self.path.stat().st_ino
        self.origin: Identity = None
        """Of a successor, what was there when it was made."""
        self.unsure = self._marker.exists()
        """Whether the table was begun anew after damage: what it lacks may be ours all the same."""
        self.pending = False
        """Whether a source has still to say what it has since this process began: what lacks may be ours."""
        self.ours: set[str] = set()
        """Those that were ours lately; always this same set, emptied at each `tick`."""

    def close(self) -> None:
        """Give the file back."""
        self._environment.close()

    def state(self, domain: str) -> State:
        """Is the folded domain ours? Those that are may be remembered until the next `tick`."""
        if domain in self.ours:
            return State.OURS
        state = self.ask(domain)
        if state is State.OURS and len(self.ours) < _REMEMBERED:
            self.ours.add(domain)
        return state

    def ask(self, domain: str) -> State:
        """Is the folded domain ours? Nothing is remembered, and no record read where the flags are there."""
        try:
            with self._environment.begin(buffers=True) as read:
                state = self._flags.state(read, domain)
        except lmdb.Error:
            return State.FAILED
        if state is None:
            return self.find(domain).state
        return State.FAILED if state is not State.OURS and (self.unsure or self.pending) else state

    def tick(self) -> None:
        """Forget what is remembered; call it every second or so, so that a removed domain is soon refused."""
        self.ours.clear()
        self._flags.tick(self.path)
        self.unsure = self._marker.exists()
        free_places(self._environment)

    def complete(self) -> bool:
        """Make the flags of a table that has none; or anew where they are damaged: returns whether they were.

        It takes a second for each million domains, and the lock of who changes the table.
        Raises ReplicaError.
        """
        try:
            with self._environment.begin() as read:
                there, good = read.get(HEAD) is not None, whole(read, self._environment.open_db(None, read))
        except lmdb.Error as error:
            raise ReplicaError(f"{self.path}: cannot be read: {error}") from None
        if not good:
            with self._changing(anew=True):
                pass
        return there and not good

    def displaced(self) -> bool:
        """Whether the file was removed, or another one is in its place, where others look and write.

        Call it every second or so: that another one was written over it shows in two calls.
        """
        there = _identity(self.path)
        return there is None or there[0] != self._inode or self._overwritten.look(self._environment)

    def successor(self) -> "Replica":
        """What was put in the place of this table; or a copy of this one, where it was just removed.

        It is under another name until `succeed`: LMDB's lock file belongs to this one,
        and would tell wrong about another. Raises ReplicaError.
        """
        fresh, origin = self.path.with_name(_SUCCESSOR), _identity(self.path)
        try:
            for path in (fresh, _lock(fresh)):
                path.unlink(missing_ok=True)
            if origin is None:
                self._environment.copy(str(fresh))
            else:
                shutil.copyfile(self.path, fresh)
            fresh.chmod(0o660)
        except (OSError, lmdb.Error) as error:
            raise ReplicaError(f"{self.path}: cannot be copied: {error}") from None
        made = Replica(self.path.parent, name=_SUCCESSOR)
        made.origin = origin
        return made

    def succeed(self, successor: "Replica") -> bool:
        """Go on with a successor, in the place of this table; False if that was changed meanwhile."""
        if _identity(self.path) != successor.origin:
            successor.close()
            return False
        # The lock first: who opens the table between the two changes what is gone then, and harms nothing.
        _lock(successor.path).rename(_lock(self.path))
        successor.path.rename(self.path)
        self._flags = Flags()
        self._environment.close()
        self._environment = successor.hand_over()
        self._inode = self.path.stat().st_ino
        self.ours.clear()
        return True

    def reopen(self) -> None:
        """Go on with what another process has put in the place of this table. Raises ReplicaError."""
        fresh = self._open()
        self._flags = Flags()
        self._environment.close()
        self._environment = fresh
        self._inode = self.path.stat().st_ino
        self.ours.clear()

    def hand_over(self) -> lmdb.Environment:
        """The open file of a successor, which is not to be used any more."""
        return self._environment

    def accept(self) -> None:
        """The operator says that the table is whole again, after it was damaged."""
        self._marker.unlink(missing_ok=True)
        self.unsure = False

    def find(self, domain: str) -> Match:
        """Is the folded domain ours, by which record? Never raises: the answer says so when there is none."""
        try:
            with self._environment.begin() as read:
                match = find(domain, read.get)
                if match is not NOT_OURS:
                    return match
                if self.unsure or self.pending:
                    return Match(State.FAILED)
                return NOT_OURS if count(read) else Match(State.OFF)
        except lmdb.Error:
            return Match(State.FAILED)

    def off(self) -> bool:
        """Whether nothing was ever given to tell by: the first domain will switch the check on."""
        return not self.unsure and not self.pending and self.count() == 0

    def count(self) -> int:
        """Domains in the table."""
        with self._environment.begin() as read:
            return count(read)

    def records(self, origins: int = FROM_FILE | FROM_COMMAND) -> Iterator[Record]:
        """What these origins say of the domains they know, in the order of the hashes."""
        with self._environment.begin() as read:
            for _, raw in filter(is_record, read.cursor()):
                record = Record.decode(bytes(raw), origins)
                if record.origins:
                    yield record

    def get(self, domain: str) -> Record | None:
        """What all origins together say of exactly this folded domain."""
        with self._environment.begin() as read:
            raw = read.get(digest(domain))
        return None if raw is None else Record.decode(bytes(raw))

    def replace(self, origin: int, records: Mapping[str, Record], max_shrink: float) -> Changed:
        """Let the domains of one origin be exactly these; those of other origins stay.

        Raises ShrinkError when the table would lose more than the share `max_shrink`
        of its domains: a file that was cut off or mixed up must not stop mail.
        """
        with self._changing() as (write, flags):
            removed, total = [], 0
            for key, raw in filter(is_record, write.cursor()):
                total += 1
                record = Record.decode(bytes(raw), origin)
                if record.origins and record.domain not in records:
                    removed.append((key, unsaid(bytes(raw), origin)))
            gone = sum(left is None for _, left in removed)
            if total and gone > max_shrink * total:
                raise ShrinkError(
                    f"{gone} of {total} domains would go, more than max_shrink = {max_shrink:.0%} allows"
                )
            for key, left in removed:
                _store(write, flags, key, left)
            # In the order of the table: what is next to each other is written together.
            in_order = sorted(records.values(), key=lambda record: digest(record.domain))
            added = sum(_put(write, flags, record, origin) for record in in_order)
        return Changed(added, gone, self.count())

    def add(self, records: Iterable[Record], origin: int) -> int:
        """Add domains, or change their next hops; returns how many are new.

        Adding takes nothing away: a domain whose subdomains this origin included keeps them.
        """
        added = 0
        with self._changing() as (write, flags):
            for record in records:
                former = write.get(digest(record.domain))
                kept = former is not None and Record.decode(bytes(former), origin).include_subdomains
                wide = record._replace(include_subdomains=record.include_subdomains or kept)
                added += _put(write, flags, wide, origin)
        return added

    def remove(self, domain: str, origin: int) -> bool:
        """Take away what this origin said of a folded domain; False if it said nothing."""
        key = digest(domain)
        with self._changing() as (write, flags):
            raw = write.get(key)
            if raw is None or not Record.decode(bytes(raw), origin).origins:
                return False
            _store(write, flags, key, unsaid(bytes(raw), origin))
            return True

    @contextlib.contextmanager
    def _changing(self, anew: bool = False) -> Iterator[tuple["lmdb.Transaction[bytes]", Flagging]]:
        with writing(self._environment, self.path) as write:
            main = self._environment.open_db(None, write)
            flags = Flagging(write, main, main, anew)
            yield write, flags
            flags.finish()

    def _open(self) -> lmdb.Environment:
        try:
            return open_table(self.path)
        except DamagedError:
            if not self._mend:
                raise
            # Its sources fill a new one.
            self._marker.touch(mode=0o640)
            self.put_aside = put_aside(self.path)
            return open_table(self.path)


def _identity(path: Path) -> Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}-lock")


def _store(write: "lmdb.Transaction[bytes]", flags: Flagging, key: bytes, raw: bytes | None) -> None:
    """Let a stored record be this from now on; None for none."""
    flags.note(key, raw)
    if raw is None:
        write.delete(key)
    else:
        write.put(key, raw)


def _put(write: "lmdb.Transaction[bytes]", flags: Flagging, record: Record, origin: int) -> bool:
    """Write what one origin says; returns whether the domain is new."""
    if record.origins != origin:
        record = record._replace(origins=origin)
    key = digest(record.domain)
    former = write.get(key)
    raw = said(None if former is None else bytes(former), record)
    if raw != former:
        _store(write, flags, key, raw)
    return former is None
