"""Look domains up in the tables that the policy daemon keeps on this host; changes nothing there.

There are two files, both maybe missing: `postgres.lmdb`, what PostgreSQL says,
and `domains.lmdb`, what the domains file and the commands said here. A file may
come, go or be replaced by another at any time: `tick` looks.
"""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from mxweir.domains.damage import check_whole
from mxweir.domains.flags import FLAGS, Flags, count, is_record
from mxweir.domains.match import NOT_OURS, Match, State, exact, find, nearest

HERE = "domains.lmdb"
"""The table of the domains file and the commands, in the state directory."""

POSTGRES = "postgres.lmdb"
"""The replica of the table in PostgreSQL, in the state directory."""

RECORDS = b"records"
"""The database within the replica that has the records; the table of this host has them in its only one."""

META = b"meta"
"""The database within the replica that says how far it has come, and whether it is pinned."""

PROGRESS, FROZEN = b"progress", b"frozen"
"""Its keys; both values are JSON."""

JOURNAL = b"journal"
"""The database within the replica that names the domains which changed lately, by a running number."""

DATABASES = 5
"""Databases within the replica; one of them is its writer's alone."""

MAP_SIZE = 8 * 2**30
"""Address space, not memory or disk: room for some ten million domains and their copies."""


class TableReader:
    """One of the files; `database` is the one within it that has the records, None for its only one."""

    def __init__(self, path: Path, database: bytes | None = None) -> None:
        self.path = path
        self.failed = False
        """Whether a lookup failed since the file was opened: it is damaged, or on a disk that is."""
        self._name = database
        self._environment: lmdb.Environment | None = None
        self._records: Any = None
        self._meta: Any = None
        self._journal: Any = None
        self._flags_database: Any = None
        self._flags = Flags()
        self._inode = 0
        self._open(check=True)

    @property
    def there(self) -> bool:
        """Whether there is a table that can be read."""
        return self._environment is not None

    @property
    def inode(self) -> int:
        """Which file it is; 0 for none."""
        return self._inode

    def find(self, domain: str) -> Match:
        """Is the folded domain ours by this table? FAILED where it cannot be read, or is not there."""
        if self._environment is None:
            return Match(State.FAILED)
        try:
            with self._environment.begin(db=self._records) as read:
                return find(domain, read.get)
        except lmdb.Error:
            self.failed = True
            return Match(State.FAILED)

    def knows(self, domain: str) -> bool:
        """Whether the folded domain is ours by the flags of this replica; where it has none, `find` knows."""
        if self._environment is None or self._flags_database is None:
            return False
        try:
            with self._environment.begin(db=self._flags_database, buffers=True) as read:
                return self._flags.state(read, domain) is State.OURS
        except lmdb.Error:
            self.failed = True
            return False

    def count(self) -> int:
        """Domains in the table; 0 where it cannot be read."""
        if self._environment is None:
            return 0
        try:
            with self._environment.begin() as read:
                return int(read.stat(self._records)["entries"]) if self._name else count(read)
        except lmdb.Error:
            self.failed = True
            return 0

    def meta(self, key: bytes) -> bytes | None:
        """What the replica says of itself under a key; None where it says nothing or cannot be read."""
        if self._environment is None or self._meta is None:
            return None
        try:
            with self._environment.begin(db=self._meta) as read:
                return read.get(key)
        except lmdb.Error:
            self.failed = True
            return None

    def scan(self, after: bytes, most: int) -> "list[tuple[bytes, bytes]]":
        """The next hashes and stored records behind a hash, in their order. Raises lmdb.Error."""
        return self._behind(self._records, after, most, is_record)

    def journal(self, after: int, most: int) -> list[tuple[int, str]]:
        """The next domains that changed behind a running number. Raises lmdb.Error.

        Where the first number is not the one behind `after`, changes between them are not known any more.
        """
        found = self._behind(self._journal, after.to_bytes(8), most)
        return [(int.from_bytes(key), name.decode()) for key, name in found]

    def last_change(self) -> int:
        """The running number of the last change in the journal; 0 where there was none. Raises lmdb.Error."""
        if self._environment is None or self._journal is None:
            return 0
        with self._environment.begin(db=self._journal) as read, read.cursor() as cursor:
            return int.from_bytes(cursor.key()) if cursor.last() else 0

    def version(self) -> int:
        """Another number after each change."""
        return 0 if self._environment is None else int(self._environment.info()["last_txnid"])

    def tick(self) -> None:
        """Look whether another file has come, or a lookup failed; call it every second or so."""
        self._flags.tick(self.path)
        if self._inode != _inode(self.path) or (self.there and self.failed):
            # Not read through: a process that takes care of it has just made it, and we have no time.
            self.close()
            self._open(check=False)
        elif self.there and self._flags_database is None:
            self._look_for_flags()

    def close(self) -> None:
        """Give the file back."""
        self._flags = Flags()
        if self._environment is not None:
            self._environment.close()
        self._environment, self._flags_database, self._inode = None, None, 0

    def _look_for_flags(self) -> None:
        """In the replica; the flags of the table of this host are for the daemon, which writes it."""
        if self._environment is None or not self._name:
            return
        with contextlib.suppress(lmdb.Error):
            self._flags_database = self._environment.open_db(FLAGS, create=False)

    def _behind(
        self,
        database: Any,
        after: bytes,
        most: int,
        wanted: Callable[[tuple[bytes, bytes]], bool] | None = None,
    ) -> list[tuple[bytes, bytes]]:
        if self._environment is None:
            return []
        with self._environment.begin(db=database) as read, read.cursor() as cursor:
            there = cursor.set_range(after)
            if there and cursor.key() == after:
                there = cursor.next()
            return list(itertools.islice(filter(wanted, cursor.iternext()), most)) if there else []

    def _open(self, check: bool) -> None:
        self._inode, self.failed = _inode(self.path), False
        if not self._inode:
            return
        with contextlib.ExitStack() as undo:
            try:
                environment = lmdb.open(
                    str(self.path),
                    subdir=False,
                    readonly=True,
                    map_size=MAP_SIZE,
                    max_dbs=DATABASES if self._name else 0,
                )
                undo.callback(environment.close)
                if check:
                    check_whole(self.path, MAP_SIZE)
                if self._name:
                    self._records = environment.open_db(self._name, create=False)
                    with contextlib.suppress(lmdb.NotFoundError):
                        self._meta = environment.open_db(META, create=False)
                        self._journal = environment.open_db(JOURNAL, create=False)
            except lmdb.NotFoundError:
                self._inode = 0  # its maker has not come that far; the next tick looks again
            except (lmdb.Error, OSError):
                self.failed = True
            else:
                undo.pop_all()
                self._environment = environment
                self._look_for_flags()


class DomainReader:
    """Both tables of a state directory: whose domain is it, and is it ours by what this host knows?"""

    def __init__(self, state_dir: Path) -> None:
        self.postgres = TableReader(state_dir / POSTGRES, RECORDS)
        self.here = TableReader(state_dir / HERE)

    def find(self, domain: str) -> Match:
        """The match of a folded domain; NOT_OURS where neither table speaks for it."""
        match = self.postgres.find(domain)
        if not exact(match, domain):
            match = nearest(match, self.here.find(domain))
        return match if match.raw else NOT_OURS

    def tick(self) -> None:
        """Look whether other files have come; call it every second or so."""
        self.postgres.tick()
        self.here.tick()

    def close(self) -> None:
        """Give the files back."""
        self.postgres.close()
        self.here.close()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
