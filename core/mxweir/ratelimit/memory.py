"""Counters in the memory of one process, bounded.

**Two generations.** Each table keeps a young and an old dict. What is touched
moves to the young one; after the time in which any untouched counter must have
run empty, the young becomes the old and the old is dropped. Nothing is ever
searched for expired entries, and what is dropped by time had nothing left to
say.

**Full.** When strangers make so many keys that the bound is reached first, the
generations turn early. Then keys that were not touched for longest are
forgotten (a limit forgets in favour of mail), while those in use stay: a flood
of new keys cannot wash away the counter of somebody who goes on sending.

The bound counts what takes the memory: keys where each has one number, else the
parts of a window that were used, or the different values.
"""

from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from mxweir.ratelimit.arithmetic import SLICES, Answer, Seen, Slices, at_most_full, distinct, gcra, window

V = TypeVar("V")
Parts = TypeVar("Parts", bound=Sized)
Row = tuple[str, Any]
"""A counter on its way to a file or to a table with another rate: key, and numbers in JSON's types."""

_DROPPED_A_TICK = 50_000
_LATE = 0.999
"""Of a part of a window, when it is told in seconds: at its very end, rounding could make it the next one."""

_NO_SLICES = Slices()
_NOTHING_SEEN = Seen()


class Pace(NamedTuple):
    """How much a key may: `amount` in `period` seconds, `burst` at once; endless for an unlimited key."""

    amount: float
    period: float
    burst: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.amount / self.period

    def scaled(self, share: float) -> "Pace":
        """A share of it, and never less than one event."""
        return Pace(max(1.0, self.amount * share), self.period, max(1.0, self.burst * share))


class Generations(Generic[V]):
    """A bounded dict that forgets what was not touched for `lifetime` seconds (or up to twice that)."""

    __slots__ = ("_dying", "_turned", "half", "lifetime", "old", "young")

    def __init__(self, lifetime: float, capacity: int) -> None:
        self.lifetime = lifetime
        self.half = max(1, capacity // 2)
        self._turned = float("-inf")
        self._dying: dict[str, V] = {}
        self.young: dict[str, V] = {}
        self.old: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def get(self, key: str, absent: V) -> V:
        """What is remembered of a key."""
        found = self.young.get(key)
        return self.old.get(key, absent) if found is None else found

    def put(self, key: str, value: V) -> None:
        """Remember."""
        young = self.young
        if len(young) >= self.half and key not in young:
            self.turn()
            young = self.young
        young[key] = value

    def keep(self, key: str) -> None:
        """Let a key live on as it is: who is refused is not charged, and still goes on sending."""
        if key not in self.young and (found := self.old.get(key)) is not None:
            Generations.put(self, key, found)

    def drop(self, key: str) -> None:
        """Forget a key."""
        self.young.pop(key, None)
        self.old.pop(key, None)

    def resize(self, capacity: int) -> None:
        """Set another bound; it holds from the next new key on."""
        self.half = max(1, capacity // 2)

    def tick(self, now: float) -> None:
        """Turn the generations when it is time, and free what was dropped bit by bit."""
        if now - self._turned >= self.lifetime:
            self._turned = now
            self.turn()
        for _ in range(min(_DROPPED_A_TICK, len(self._dying))):
            self._dying.popitem()

    def items(self) -> list[tuple[str, V]]:
        """All that is remembered, each key once, as of now."""
        return [
            *((key, value) for key, value in self.old.items() if key not in self.young),
            *self.young.items(),
        ]

    def turn(self) -> None:
        """Start a new generation; the old one is dropped."""
        self._dying = self.old
        self.old, self.young = self.young, {}


class Table(Protocol):
    """The counters of one limit."""

    def ask(self, key: str, value: str, cost: float, now: float) -> Answer[Any]:
        """Is there room? Counts nothing."""

    def put(self, key: str, mark: Any) -> None:
        """Count it; `mark` is what `ask` said to remember."""

    def keep(self, key: str) -> None:
        """The key was asked about and not charged; it is no less in use for that."""

    def drop(self, key: str) -> None:
        """Forget a key."""

    def capacity(self, key: str) -> float:
        """How much the key may use at once."""

    def rows(self, now: float) -> Iterator[Row]:
        """What is remembered, in a form that outlives the rate and the process."""

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over rows that were made `elapsed` seconds ago."""

    def tick(self, now: float) -> None:
        """Forget what is over."""

    def resize(self, capacity: int) -> None:
        """Set another bound; it holds from the next new key on."""

    def __len__(self) -> int:
        """Keys remembered."""


class Paces:
    """A limit's pace, and those of keys that have one of their own."""

    def __init__(self, pace: Pace, overrides: dict[str, Pace]) -> None:
        self.usual = pace
        self.own = overrides

    def of(self, key: str) -> Pace:
        """The key's own pace, else the limit's."""
        return self.own.get(key, self.usual)

    def scaled(self, share: float) -> "Paces":
        """A share of each."""
        if share == 1.0:
            return self
        return Paces(self.usual.scaled(share), {key: pace.scaled(share) for key, pace in self.own.items()})

    def counted(self) -> list[Pace]:
        """All paces there are but the unlimited ones."""
        return [pace for pace in (self.usual, *self.own.values()) if pace.amount < float("inf")]


class GcraTable(Generations[float]):
    """Rates with a burst: one number a key, the TAT in events at the key's own pace."""

    def __init__(self, paces: Paces, capacity: int) -> None:
        super().__init__(max(pace.burst / pace.rate for pace in paces.counted()), capacity)
        self._paces = paces
        self.own = paces.own
        self.rate, self.burst = paces.usual.rate, paces.usual.burst

    def capacity(self, key: str) -> float:
        """The key's burst."""
        return self._paces.of(key).burst

    def ask(self, key: str, value: str, cost: float, now: float) -> Answer[float]:
        """Is there room?"""
        pace = self._paces.of(key)
        if pace.amount == float("inf"):
            return 0.0, 0.0, 0.0  # an endless pace makes every time endless, and their difference no number
        tat, turn = self.get(key, 0.0), now * pace.rate
        if (full := at_most_full(tat, turn, pace.burst)) < tat:
            self.put(key, tat := full)
        return gcra(tat, turn, cost, pace.burst, pace.rate)

    def rows(self, now: float) -> Iterator[Row]:
        """Key and events in use."""
        for key, tat in self.items():
            if (used := tat - now * self._paces.of(key).rate) > 0:
                yield key, used

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over what would still be in use; never more than the burst."""
        for key, used in rows:
            pace = self._paces.of(key)
            left = min(used - elapsed * pace.rate, pace.burst)
            if left > 0:
                self.put(key, now * pace.rate + left)


class PartsTable(Generations[Parts]):
    """Keys of which many parts are remembered; the bound counts parts and not keys."""

    __slots__ = ("_parts",)

    def __init__(self, lifetime: float, capacity: int) -> None:
        super().__init__(lifetime, capacity)
        self._parts = 0

    def keep(self, key: str) -> None:
        """Let a key live on, with all its parts."""
        if key not in self.young and (found := self.old.get(key)) is not None:
            self._store(key, found, 0)

    def drop(self, key: str) -> None:
        """Forget a key, with all its parts."""
        if (found := self.young.get(key)) is not None:
            self._parts -= len(found)
        super().drop(key)

    def turn(self) -> None:
        """Start a new generation."""
        self._parts = 0
        super().turn()

    def _counted(self, key: str, held: Parts) -> int:
        """How many of the key's parts count; one that comes up from the old generation brings all along."""
        return len(held) if key in self.young else 0

    def _store(self, key: str, held: Parts, counted: int) -> None:
        """Remember a key's parts, of which so many were counted before."""
        super().put(key, held)
        self._parts += len(held) - counted
        if self._parts >= self.half:
            self.turn()


class WindowTable(PartsTable[Slices]):
    """Quotas over a sliding window. The bound counts the parts of it that a key used, up to 61."""

    def __init__(self, paces: Paces, capacity: int) -> None:
        super().__init__(max(pace.period for pace in paces.counted()) * (1 + 2 / SLICES), capacity)
        self._paces = paces

    def capacity(self, key: str) -> float:
        """The key's quota."""
        return self._paces.of(key).amount

    def ask(self, key: str, value: str, cost: float, now: float) -> Answer[tuple[int, float]]:
        """Is there room?"""
        pace = self._paces.of(key)
        slices = self.get(key, _NO_SLICES)
        counted = self._counted(key, slices)
        answer = window(slices, now, cost, pace.amount, pace.period)
        self._parts -= counted - self._counted(key, slices)
        return answer

    def put(self, key: str, mark: Any) -> None:
        """Count it."""
        slices = self.get(key, _NO_SLICES)
        if slices is _NO_SLICES:
            slices = Slices()
        counted = self._counted(key, slices)
        slices.add(*mark)
        self._store(key, slices, counted)

    def rows(self, now: float) -> Iterator[Row]:
        """Key and [age in seconds of each part, events]; a part is as old as its last moment."""
        for key, slices in self.items():
            width = self._paces.of(key).period / SLICES
            if slices.counts:
                yield key, [[now - (part + _LATE) * width, count] for part, count in slices.counts.items()]

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over the parts that are still within the window."""
        for key, parts in rows:
            width = self._paces.of(key).period / SLICES
            current = int(now // width)
            for age, count in parts:
                part = min(int((now - age - elapsed) // width), current)
                if part >= current - SLICES:
                    self.put(key, (part, count))


class DistinctTable(PartsTable[Seen]):
    """How many different values a key had. The bound counts values."""

    def __init__(self, paces: Paces, capacity: int) -> None:
        super().__init__(max(pace.period for pace in paces.counted()), capacity)
        self._paces = paces

    def capacity(self, key: str) -> float:
        """How many different values the key may have."""
        return self._paces.of(key).amount

    def ask(self, key: str, value: str, cost: float, now: float) -> Answer[tuple[str, float]]:
        """Is the value known, or is there room for one more?"""
        pace = self._paces.of(key)
        seen = self.get(key, _NOTHING_SEEN)
        counted = self._counted(key, seen)
        answer = distinct(seen, value, now, pace.amount, pace.period)
        self._parts -= counted - self._counted(key, seen)
        return answer

    def put(self, key: str, mark: Any) -> None:
        """Remember the value."""
        seen = self.get(key, _NOTHING_SEEN)
        if seen is _NOTHING_SEEN:
            seen = Seen()
        counted = self._counted(key, seen)
        seen.see(*mark)
        self._store(key, seen, counted)

    def rows(self, now: float) -> Iterator[Row]:
        """Key and [value, age in seconds]."""
        for key, seen in self.items():
            if seen:
                yield key, [[value, now - at] for value, at in seen.items()]

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over the values that are still within the period."""
        for key, values in rows:
            for value, age in values:
                if age + elapsed < self._paces.of(key).period:
                    self.put(key, (value, now - max(0.0, age + elapsed)))


class Repeats:
    """Which questions were charged lately, by a hash of their identity; bounded, and no clock needed.

    Postfix repeats a question within seconds; this remembers the last 16,384
    to 32,768 charged ones, which is a quarter of a minute on a very busy host.
    """

    _HALF = 16_384

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: set[int] = set()
        self.old: set[int] = set()

    def __contains__(self, identity: int) -> bool:
        return identity in self.young or identity in self.old

    def add(self, identity: int) -> None:
        """Remember one."""
        self.young.add(identity)
        self.make_room()

    def add_all(self, identities: Iterable[int]) -> None:
        """Remember many."""
        self.young.update(identities)
        self.make_room()

    def make_room(self) -> None:
        """Forget those of long ago when there are many."""
        if len(self.young) >= self._HALF:
            self.old, self.young = self.young, set()
