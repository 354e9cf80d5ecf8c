"""All that operators have said, as one process knows it, and the index by which it is asked. Pure."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import inf

from mxweir.access import Index
from mxweir_policyd.accesslist.record import MOST, Record


class Book:
    """One word about each value, of which the later replaces the former; bounded.

    `index` always has what stands here, and nothing else. `history` names the list
    that this follows ("": none but its own), `version` is up to where it was read.
    """

    def __init__(self) -> None:
        self.index = Index()
        self.history = ""
        self.version = 0
        self.entries = 0
        """How many there are that block or allow."""
        self._records: dict[str, Record] = {}
        self._ends: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        """Words, with those that withdrew something."""
        return len(self._records)

    def get(self, field: str) -> Record | None:
        """What is said of a value."""
        return self._records.get(field)

    def records(self) -> list[Record]:
        """All words, in the order in which they were said."""
        return sorted(self._records.values(), key=lambda record: record.version)

    def take(self, record: Record, now: float) -> bool:
        """A word that is later than what is said of the value so far; False where there is no room."""
        if record.until <= now:
            self._forget(record.field)
        elif record.field not in self._records and len(self._records) >= MOST:
            return False
        else:
            self._forget(record.field)
            self._remember(record)
        self.version = max(self.version, record.version)
        return True

    def load(self, history: str, version: int, records: Iterable[Record], now: float) -> None:
        """Begin with what was known of a history up to a version."""
        for record in records:
            self.take(record, now)
        self.history, self.version = history, version

    def retain(self, fields: Iterable[str]) -> None:
        """Forget all but these."""
        for field in self._records.keys() - set(fields):
            self._forget(field)

    def expire(self, now: float) -> int:
        """Forget what is over; returns how many entries that were. `now` in seconds since the epoch."""
        before = self.entries
        while self._ends and self._ends[0][0] <= now:
            _, version, field = heappop(self._ends)
            record = self._records.get(field)
            if record is not None and record.version == version and record.until <= now:
                self._forget(field)
        return before - self.entries

    def _remember(self, record: Record) -> None:
        self._records[record.field] = record
        if record.action:
            self.index.put(record.entry())
            self.entries += 1
        if record.until != inf:
            heappush(self._ends, (record.until, record.version, record.field))
            if len(self._ends) > 2 * MOST:
                self._tidy()

    def _forget(self, field: str) -> None:
        record = self._records.pop(field, None)
        if record is not None and record.action:
            self.index.drop(record.entry())
            self.entries -= 1

    def _tidy(self) -> None:
        """Ends of words that were replaced go only when they are over, or now."""
        held = self._records.values()
        self._ends = [(each.until, each.version, each.field) for each in held if each.until != inf]
        heapify(self._ends)
