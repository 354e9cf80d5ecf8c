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
"""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from mxweir.ratelimit.arithmetic import SLICES, Room, Seen, Slices, distinct, gcra, window

V = TypeVar("V")
Row = tuple[str, Any]
"""A counter on its way to a file or to a table with another rate: key, and numbers in JSON's types."""

_DROPPED_A_TICK = 50_000


class Pace(NamedTuple):
    """How much a key may: `amount` in `period` seconds, `burst` at once; an unlimited key has an endless amount."""

    amount: float
    period: float
    burst: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.amount / self.period


class Generations(Generic[V]):
    """A bounded dict that forgets what was not touched for `lifetime` seconds (or up to twice that)."""

    def __init__(self, lifetime: float, capacity: int) -> None:
        self.lifetime = lifetime
        self._half = max(1, capacity // 2)
        self._turned = float("-inf")
        self._dying: dict[str, V] = {}
        self.young: dict[str, V] = {}
        self.old: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def get(self, key: str) -> V | None:
        """What is remembered of a key."""
        found = self.young.get(key)
        return self.old.get(key) if found is None else found

    def put(self, key: str, value: V) -> None:
        """Remember."""
        young = self.young
        if len(young) >= self._half and key not in young:
            self.turn()
            young = self.young
        young[key] = value

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

    def ask(self, key: str, value: str, cost: float, now: float) -> Room:
        """Is there room? Changes nothing."""

    def charge(self, key: str, value: str, cost: float, now: float, used: float) -> None:
        """Count it; `used` is what `ask` said."""

    def capacity(self, key: str) -> float:
        """How much the key may use at once."""

    def rows(self, now: float) -> Iterator[Row]:
        """What is remembered, in a form that outlives the rate and the process."""

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over rows that were made `elapsed` seconds ago."""

    def tick(self, now: float) -> None:
        """Forget what is over."""

    def __len__(self) -> int:
        """Keys remembered."""


class _Paced:
    """A table's pace, and the paces of keys that have one of their own."""

    def __init__(self, pace: Pace, overrides: dict[str, Pace]) -> None:
        self._pace = pace
        self._overrides = overrides

    def pace(self, key: str) -> Pace:
        """The key's own pace, else the limit's."""
        return self._overrides.get(key, self._pace) if self._overrides else self._pace

    def capacity(self, key: str) -> float:
        """How much the key may use at once."""
        return self.pace(key).burst

    def counted(self) -> list[Pace]:
        """All paces there are but the unlimited ones."""
        return [pace for pace in (self._pace, *self._overrides.values()) if pace.amount < float("inf")]


class GcraTable(_Paced):
    """Rates with a burst: one number a key, the TAT in events at the key's own pace."""

    def __init__(self, pace: Pace, overrides: dict[str, Pace], capacity: int) -> None:
        super().__init__(pace, overrides)
        self._tats = Generations[float](max(pace.burst / pace.rate for pace in self.counted()), capacity)

    def __len__(self) -> int:
        return len(self._tats)

    def ask(self, key: str, value: str, cost: float, now: float) -> Room:
        """Is there room?"""
        pace = self.pace(key)
        rate = pace.amount / pace.period
        tat = self._tats.get(key)
        return gcra(0.0 if tat is None else tat, now * rate, cost, pace.burst, rate)

    def charge(self, key: str, value: str, cost: float, now: float, used: float) -> None:
        """Count it."""
        pace = self.pace(key)
        self._tats.put(key, now * (pace.amount / pace.period) + used + cost)

    def rows(self, now: float) -> Iterator[Row]:
        """Key and events in use."""
        for key, tat in self._tats.items():
            if (used := tat - now * self.pace(key).rate) > 0:
                yield key, used

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over what would still be in use; never more than the burst."""
        for key, used in rows:
            pace = self.pace(key)
            left = min(used - elapsed * pace.rate, pace.burst)
            if left > 0:
                self._tats.put(key, now * pace.rate + left)

    def tick(self, now: float) -> None:
        """Forget what is over."""
        self._tats.tick(now)


class WindowTable(_Paced):
    """Quotas over a sliding window."""

    def __init__(self, pace: Pace, overrides: dict[str, Pace], capacity: int) -> None:
        super().__init__(pace, overrides)
        self._slices = Generations[Slices](
            max(pace.period for pace in self.counted()) * (1 + 2 / SLICES), capacity
        )

    def __len__(self) -> int:
        return len(self._slices)

    def ask(self, key: str, value: str, cost: float, now: float) -> Room:
        """Is there room?"""
        pace = self.pace(key)
        slices = self._slices.get(key)
        if slices is None:
            return Room(0.0, 0.0 if cost <= pace.amount else pace.period)
        return window(slices, now, cost, pace.amount, pace.period)

    def charge(self, key: str, value: str, cost: float, now: float, used: float) -> None:
        """Count it."""
        slices = self._slices.get(key) or Slices()
        slices.add(int(now // (self.pace(key).period / SLICES)), cost)
        self._slices.put(key, slices)

    def rows(self, now: float) -> Iterator[Row]:
        """Key and [age in seconds of each part, events]."""
        for key, slices in self._slices.items():
            width = self.pace(key).period / SLICES
            if slices.counts:
                yield key, [[now - part * width, count] for part, count in slices.counts.items()]

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over the parts that are still within the window."""
        for key, parts in rows:
            pace = self.pace(key)
            slices = Slices()
            for age, count in parts:
                if age + elapsed <= pace.period * (1 + 1 / SLICES):
                    slices.add(int((now - max(0.0, age + elapsed)) // (pace.period / SLICES)), count)
            if slices.counts:
                self._slices.put(key, slices)

    def tick(self, now: float) -> None:
        """Forget what is over."""
        self._slices.tick(now)


class DistinctTable(_Paced):
    """How many different values a key had. The bound counts values, not keys."""

    def __init__(self, pace: Pace, overrides: dict[str, Pace], capacity: int) -> None:
        super().__init__(pace, overrides)
        self._seen = Generations[Seen](max(pace.period for pace in self.counted()), capacity)
        self._values = 0
        self._capacity = capacity

    def __len__(self) -> int:
        return len(self._seen)

    def ask(self, key: str, value: str, cost: float, now: float) -> Room:
        """Is the value known, or is there room for one more?"""
        pace = self.pace(key)
        seen = self._seen.get(key)
        if seen is None:
            return Room(0.0, 0.0)
        return distinct(seen, value, now, pace.amount, pace.period)

    def charge(self, key: str, value: str, cost: float, now: float, used: float) -> None:
        """Remember the value."""
        seen = self._seen.get(key)
        if seen is None:
            seen = Seen()
        self._values += value not in seen
        seen.see(value, now)
        self._seen.put(key, seen)
        if self._values > self._capacity // 2:
            self._values = 0
            self._seen.turn()

    def rows(self, now: float) -> Iterator[Row]:
        """Key and [value, age in seconds]."""
        for key, seen in self._seen.items():
            if seen:
                yield key, [[value, now - at] for value, at in seen.items()]

    def load(self, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over the values that are still within the period."""
        for key, values in rows:
            seen = Seen()
            for value, age in values:
                if age + elapsed < self.pace(key).period:
                    seen.see(value, now - max(0.0, age + elapsed))
            if seen:
                self._seen.put(key, seen)

    def tick(self, now: float) -> None:
        """Forget what is over."""
        self._seen.tick(now)


class Repeats:
    """Which questions were charged lately, by a hash of their identity; bounded, and no clock needed.

    Postfix repeats a question within seconds; this remembers the last 65,536
    to 131,072 charged ones, which is minutes on a busy host.
    """

    _HALF = 65_536

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, identity: int) -> bool:
        return identity in self._young or identity in self._old

    def add(self, identity: int) -> None:
        """Remember one."""
        self._young.add(identity)
        if len(self._young) >= self._HALF:
            self._old, self._young = self._young, set()
