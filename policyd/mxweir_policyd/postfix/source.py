"""Our tables as the source of Postfix's: which record decides about each domain, and what has changed."""

from collections.abc import Iterator
from pathlib import Path

from mxweir.domains.match import Match, exact
from mxweir.domains.reader import PROGRESS, DomainReader, TableReader
from mxweir.domains.record import Record
from mxweir_policyd.relaydomains.progress import Progress

_PIECE = 5_000
"""Records that are read in one transaction: a long one would keep the pages that others give free."""

_MOST_CHANGES = 20_000
"""Changed domains that are followed at once."""


class Tables:
    """Both tables of a state directory, to be read only; `postgres`: whether there is a replica."""

    def __init__(self, state_dir: Path, postgres: bool) -> None:
        self._reader = DomainReader(state_dir)
        self._unsure = state_dir / "domains.unsure"
        self._postgres = postgres
        self._number = -1
        self._seen: object = None
        self._given = False
        """Whether this host's own table was ever there."""

    def close(self) -> None:
        """Give the files back."""
        self._reader.close()

    def find(self, domain: str) -> Match:
        """Is the folded domain ours, by which record?"""
        return self._reader.find(domain) if self._postgres else self._reader.here.find(domain)

    def records(self) -> Iterator[Record]:
        """Every record that decides about its own domain, each once. Raises lmdb.Error."""
        if self._postgres:
            yield from _records(self._reader.postgres)
        for record in _records(self._reader.here):
            if not self._postgres or not exact(self._reader.postgres.find(record.domain), record.domain):
                yield record

    def whole(self) -> bool:
        """Whether what they lack is not ours for certain. An empty table is none to go by.

        Nor is one that was there and is gone: the daemon puts another one in its place within seconds.
        """
        replica, here = self._reader.postgres, self._reader.here
        self._given = self._given or here.there
        if here.failed or (self._given and not here.there) or self._unsure.exists():
            return False
        if not self._postgres:
            return here.count() > 0
        filled = Progress.decode(replica.meta(PROGRESS)).filled
        return filled and not replica.failed and replica.count() + here.count() > 0

    def changed(self) -> list[str] | None:
        """The domains that changed since this was asked last, or the first of them; None: look at all.

        Raises lmdb.Error.
        """
        self._reader.tick()
        replica, here = self._reader.postgres, self._reader.here
        seen = (here.version(), here.inode, replica.inode, self.whole())
        behind, self._seen = seen != self._seen, seen
        changes = replica.journal(self._number, _MOST_CHANGES) if self._number >= 0 else []
        if behind or (changes and changes[0][0] != self._number + 1):
            self._number = replica.last_change()
            return None
        self._number = changes[-1][0] if changes else self._number
        return [name for _, name in changes]

    def look_again(self) -> None:
        """Let the next answer of `changed` be "all": what it gave was not carried out."""
        self._seen = None


def _records(table: TableReader) -> Iterator[Record]:
    after = b""
    while piece := table.scan(after, _PIECE):
        yield from (Record.decode(raw) for _, raw in piece)
        after = piece[-1][0]
