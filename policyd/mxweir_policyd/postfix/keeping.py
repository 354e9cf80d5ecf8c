"""Make Postfix's tables agree with ours.

Two ways: `follow` looks at the domains that are said to have changed, `agree` at
all of them, in bounded memory. Few differences are mended in place, row by row;
many by writing the table anew, in one go. Next hops are in place before their
domain is taken, and go after it, so that no mail is routed by default.

A row is only taken out, and a table only made or written anew, when our tables
are whole: while the first fill runs, or after damage, what they lack may be ours.
"""

import contextlib
import fcntl
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from mxweir.domains.match import Match
from mxweir.domains.record import Record
from mxweir_policyd.postfix.postmap import Content, PostfixMap, PostfixMapError
from mxweir_policyd.postfix.rows import RELAY, TRANSPORT, domain_of, keys_of, rows_of, wanted

T = TypeVar("T")

_PIECE = 5_000
"""Domains or keys that are looked at while a table is locked against changes."""

_BATCH = 1_000
"""Rows that one postmap changes in place."""

_MANY = 100_000
"""Rows that differ before a table is written anew: in place they take half a minute."""


class Source(Protocol):
    """Our tables."""

    def find(self, domain: str) -> Match:
        """Is the folded domain ours, by which record?"""

    def records(self) -> Iterator[Record]:
        """Every record that decides about its own domain, each once."""

    def whole(self) -> bool:
        """Whether what they lack is not ours for certain."""


class Changed(NamedTuple):
    """Rows that were put, rows that were taken out, tables that were written anew."""

    put: int = 0
    removed: int = 0
    rebuilt: int = 0


class _Difference:
    """What one table lacks and what it has too much."""

    def __init__(self) -> None:
        self.put: dict[str, str] = {}
        self.delete: list[str] = []
        self.right = 0
        """Keys that are there and shall be."""

    @property
    def many(self) -> bool:
        return len(self.put) + len(self.delete) >= _MANY

    def compare(self, content: Content, rows: dict[str, str], keys: Iterable[str]) -> None:
        """Take in what differs for these keys, of which `rows` are wanted."""
        for key in keys:
            there, want = content.get(key), rows.get(key)
            self.right += there is not None and want is not None
            if want is not None and want != there:
                self.put[key] = want
            elif want is None and there is not None:
                self.delete.append(key)


class PostfixMaps:
    """Both tables in a directory. What raises PostfixMapError may be tried again: nothing is left half."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tables = PostfixMap(directory, RELAY), PostfixMap(directory, TRANSPORT)

    def count(self) -> int:
        """Rows in the table of relay domains; 0 where there is none yet."""
        if not self._tables[0].there:
            return 0
        with self._tables[0].reading() as content:
            return content.count()

    def follow(self, domains: Iterable[str], source: Source) -> Changed:
        """Bring the rows of these folded domains up to date; a table that somebody took away is made anew."""
        with self._alone():
            if not all(table.there for table in self._tables):
                return self._agree(source)
            return self._follow(domains, source)

    def _follow(self, domains: Iterable[str], source: Source) -> Changed:
        differences = _Difference(), _Difference()
        for piece in _pieces(domains):
            with self._tables[0].reading() as relay, self._tables[1].reading() as transport:
                for domain in piece:
                    rows, keys = wanted(domain, source.find(domain)), keys_of(domain)
                    differences[0].compare(relay, rows.relay, keys)
                    differences[1].compare(transport, rows.transport, keys)
        return self._mend(differences, source)

    def agree(self, source: Source) -> Changed:
        """Make both tables what our tables say, as far as ours are whole."""
        with self._alone():
            return self._agree(source)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The daemon and a command wait for each other."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            lock = (self._directory / "lock").open("w")
        except OSError as error:
            raise PostfixMapError(f"{self._directory}: cannot be written: {error.strerror}") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _agree(self, source: Source) -> Changed:
        done = Changed()
        while True:
            missing = not all(table.there for table in self._tables)
            if missing and not source.whole():
                return done
            differences = None if missing else self._differences(source)
            if differences is None or (any(each.many for each in differences) and source.whole()):
                return self._rebuild(source)
            mended = self._mend(differences, source)
            done = Changed(done.put + mended.put, done.removed + mended.removed)
            if not any(each.many for each in differences):
                return done

    def _differences(self, source: Source) -> tuple[_Difference, _Difference]:
        """How both tables differ from ours; not to the end where there is much."""
        relay, transport = differences = _Difference(), _Difference()
        for piece in _pieces(source.records()):
            with self._tables[0].reading() as domains, self._tables[1].reading() as hops:
                for record in piece:
                    rows = rows_of(record)
                    relay.compare(domains, rows.relay, rows.relay)
                    transport.compare(hops, rows.transport, rows.transport)
            if relay.many or transport.many:
                return differences
        if source.whole():
            for table, difference in zip(self._tables, differences, strict=True):
                self._surplus(table, difference, source)
        return differences

    @staticmethod
    def _surplus(table: PostfixMap, difference: _Difference, source: Source) -> None:
        """Find the keys that should not be there, if by their number there are any."""
        after = ""
        while not difference.many:
            with table.reading() as content:
                keys = content.keys(after, _PIECE) if content.count() > difference.right else []
                for key in keys:
                    rows = wanted(domain_of(key), source.find(domain_of(key)))
                    if key not in (rows.relay if table.name == RELAY else rows.transport):
                        difference.delete.append(key)
            if not keys:
                return
            after = keys[-1]

    def _mend(self, differences: tuple[_Difference, _Difference], source: Source) -> Changed:
        """Change rows in place."""
        (relay, transport), (domains, hops) = differences, self._tables
        for table, rows in ((hops, transport.put), (domains, relay.put)):
            for batch in _pieces(rows.items(), _BATCH):
                table.put(batch)
        removed = 0
        if source.whole():
            for table, keys in ((domains, relay.delete), (hops, transport.delete)):
                for part in _pieces(keys, _BATCH):
                    table.delete(part)
                removed += len(keys)
        return Changed(len(relay.put) + len(transport.put), removed)

    def _rebuild(self, source: Source) -> Changed:
        """Write both tables anew."""
        domains, hops = self._tables
        hops.rebuild(row for record in source.records() for row in rows_of(record).transport.items())
        domains.rebuild(row for record in source.records() for row in rows_of(record).relay.items())
        return Changed(rebuilt=2)


def _pieces(items: Iterable[T], most: int = _PIECE) -> Iterator[list[T]]:
    rest = iter(items)
    while piece := list(islice(rest, most)):
        yield piece
