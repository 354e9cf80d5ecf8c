"""How the replica becomes what PostgreSQL has, and stays it.

    fill       all domains in the order of their hashes, once; goes on where it was interrupted
    catch up   what changed since the point up to which the replica has everything
    compare    all of it again, range by range; only ranges that differ are read

A first fill begins with the point behind which changes are to be caught up, so
what changes meanwhile is missed by none of them. All three go on after a kill
where they were: the replica itself says how far it has come.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from mxweir.clock import Clock
from mxweir_policyd.relaydomains.mirror import Applied, Item, Mirror
from mxweir_policyd.relaydomains.progress import Progress
from mxweir_policyd.relaydomains.queries import LAST
from mxweir_policyd.relaydomains.sources.postgres import Digest, Point, PointLostError, Row

T = TypeVar("T")

_FILLED_AT_ONCE = 10
"""Batches of the first fill that are one transaction: some 6 MB, and a fiftieth of the waits for the disk."""

_CHANGED_AT_ONCE = 4
"""Batches of changes that are one transaction: each change has to write a chunk of flags, and of 20,000 some
share one. By the thousand a change costs twice as much."""


class Source(Protocol):
    """PostgreSQL; see sources/postgres.py. Every method raises SourceError."""

    def point(self) -> Point:
        """Where the table stands now."""

    def fill(self, after: bytes = b"", end: bytes = LAST) -> Iterator[list[Row]]:
        """All rows behind a hash, up to and with `end`, in the order of hashes, in batches."""

    def changes(self, since: Point) -> Iterator[list[Item]]:
        """What changed since a point, as it is now, in batches; raises PointLostError."""

    def digest(self, after: bytes = b"") -> Digest:
        """Number and checksum of the next rows behind a hash."""


class Step(NamedTuple):
    """What one step did. `share` is how much of a fill or a comparison is done, from 0 to 1."""

    applied: Applied = Applied()
    share: float = 1.0
    since: float = 0.0
    """Seconds since the replica was last brought up to date, by PostgreSQL's clock."""


class Follower:
    """Brings one replica up to date; every method raises SourceError and ReplicaError.

    `alive` is called now and then within a step that may take minutes.
    """

    def __init__(
        self,
        mirror: Mirror,
        source: Source,
        max_shrink: float,
        clock: Clock,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._mirror = mirror
        self._source = source
        self._max_shrink = max_shrink
        self._clock = clock
        self._alive = alive

    def fill(self) -> Iterator[Step]:
        """Have all domains once; ends at once when the replica was whole before."""
        progress = self._mirror.progress()
        if progress.filled:
            return
        point = self._source.point()
        if progress.point[0] != point.identity:
            progress = self._mirror.begin(point)
        for rows in _together(self._source.fill(bytes.fromhex(progress.cursor)), _FILLED_AT_ONCE):
            progress = self._mirror.fill(rows)
            yield Step(share=_share(progress.cursor))
        self._mirror.update(filled=True, verified=self._clock())
        yield Step()

    def catch_up(self) -> Step:
        """Take over what changed. Where that cannot be told any more, a full comparison is begun."""
        progress = self._mirror.progress()
        if self._mirror.frozen():
            return Step(Applied(frozen=True, held=progress.held))
        point = self._source.point()
        since = max(0.0, point.at - progress.point[2])
        try:
            changed = self._take(self._source.changes(Point(*progress.point)), point, progress)
        except PointLostError:
            self._mirror.update(point=point, compared="", behind=True)
            changed = Applied(held=progress.held)
        return Step(changed, since=since)

    def begin_comparison(self) -> None:
        """Have `compare` begin, unless it has."""
        if self._mirror.progress().compared is None:
            self._mirror.update(compared="")

    def compare(self) -> Step | None:
        """Compare the next range, and mend it; None when no comparison goes on, or the replica is pinned."""
        progress = self._mirror.progress()
        if progress.compared is None or self._mirror.frozen():
            return None
        after = bytes.fromhex(progress.compared)
        digest = self._source.digest(after)
        agrees = self._mirror.agrees(after, digest.end, digest.checksum)
        applied = Applied(held=progress.held)
        if not agrees:
            # Mostly a change that was not caught up yet; what differs still is a difference.
            applied = self.catch_up().applied
            if self._mirror.progress().compared != progress.compared:
                return Step(applied, share=0.0)
            digest = self._source.digest(after)
            agrees = self._mirror.agrees(after, digest.end, digest.checksum)
        if agrees:
            # A domain that was lost and came back while changes could not be told would go otherwise.
            self._mirror.spare(after, digest.end)
        else:
            mended = self._mend(after, digest.end)
            applied = mended._replace(changed=mended.changed + applied.changed, lost=applied.lost)
        if applied.frozen:
            return None  # pinned meanwhile: the range is compared again when it no longer is
        if digest.end == LAST:
            return Step(self._end_comparison(applied))
        self._mirror.update(compared=digest.end.hex())
        return Step(applied, share=_share(digest.end.hex()))

    def _take(self, batches: Iterator[list[Item]], point: Point, progress: Progress) -> Applied:
        """Apply batches as they come; with the last one, the replica has all up to `point`."""
        now, changed = self._clock(), 0
        together = _together(batches, _CHANGED_AT_ONCE)
        batch = next(together, [])
        for following in together:
            changed += self._mirror.apply(batch, self._max_shrink, settle=False).changed
            self._alive()
            batch = following
        seen = progress.seen if progress.behind else now
        # What a comparison finds after a lost point is weighed together at its end, and not as it comes.
        settle = not progress.behind
        applied = self._mirror.apply(batch, self._max_shrink, settle, point=point, seen=seen)
        return applied._replace(changed=applied.changed + changed)

    def _mend(self, after: bytes, end: bytes) -> Applied:
        there = dict(row for batch in self._source.fill(after, end) for row in batch)
        items: dict[bytes, bytes | None] = dict.fromkeys(self._mirror.keys(after, end))
        return self._mirror.apply((items | there).items(), self._max_shrink, settle=False)

    def _end_comparison(self, last: Applied) -> Applied:
        """Weigh all losses together; what is left is what `max_shrink` is a share of from now on."""
        settled = self._mirror.apply(
            [], self._max_shrink, compared=None, behind=False, verified=self._clock()
        )
        if not settled.held:
            self._mirror.update(baseline=self._mirror.progress().live)
        return settled._replace(changed=last.changed + settled.changed, lost=last.lost + settled.lost)


def _together(batches: Iterator[list[T]], count: int) -> Iterator[list[T]]:
    """What stands in so many batches at a time."""
    while taken := [item for batch in islice(batches, count) for item in batch]:
        yield taken


def _share(cursor: str) -> float:
    """How far a hash is on the way; hashes are spread evenly."""
    return int(cursor[:8] or "0", 16) / 2**32
