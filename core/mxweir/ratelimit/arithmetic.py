"""The sums behind a limit: given what is remembered and the time, may this pass?

**GCRA** (ITU-T I.371, the "virtual scheduling" form). Imagine each accepted
event takes its turn at an exact pace of `rate` events a second. One number a
key is remembered: the theoretical arrival time (TAT), the turn of the next
event at that pace. Somebody who keeps to the pace is never ahead of it; somebody
who is faster gets ahead, and may be ahead by at most `burst` events.

Times are counted here in *events at the limit's own pace*, not in seconds: now
is `seconds × rate`. Then every accepted event adds a whole number, and nothing
adds up: a burst of 400 is 400. (In seconds, 1/rate is seldom exact, and the error
grows with every event.) What is left is the last bit of a double, 2⁻¹⁸ of an event
at 600/minute; it is forgiven as `ROUNDING`, so that neither a burst nor somebody
who sends at exactly the pace is refused for it.

    events in use    = min(max(TAT, now) − now, burst)
    may cost c pass? = in use + c ≤ burst + ROUNDING
    if so            TAT ← max(TAT, now) + c
    if not           free again after (in use + c − burst) / rate seconds

**Sliding window**, for quotas ("500 a day"). The window is cut in `SLICES`
parts; a part counts until all of it has left the window. So no window of any
position ever holds more than the quota, and what was used comes back at most
one part (1/60 of the window) late.

**Distinct values.** A key remembers when each of its values was last seen. A
value seen within the window costs nothing; a new one needs room.

**A clock that was set back** gives nothing away: what is remembered of a time to
come counts as of now, and a counter is never fuller than full. So the
longest that anybody has to wait for it is as long as after using up the limit now.
(In Redis the clock is that of the server, and another one's after a failover.)

These functions charge nothing: they return what would be remembered, so that
a request can ask all its limits first and be charged only if all agree.
"""

from collections import OrderedDict
from typing import TypeVar

M = TypeVar("M")

SLICES = 60
"""Parts of a sliding window: one second of a minute, 24 minutes of a day."""


ROUNDING = 2.0**-10
"""Events by which a burst may be exceeded: a double's last bit at 5·10¹², thousands of events a second."""

Answer = tuple[float, float, M]
"""What a limit says: how much is used; seconds until it could pass (0: now); what to remember if it does."""


def gcra(tat: float, now: float, cost: float, burst: float, rate: float) -> Answer[float]:
    """Ask a GCRA counter; times in events at the pace of `rate` a second, `cost` and `burst` in events."""
    turn = tat if tat > now else now
    excess = turn + cost - now - burst
    return turn - now, (excess / rate if excess > ROUNDING else 0.0), turn + cost


def at_most_full(tat: float, now: float, burst: float) -> float:
    """The TAT of a GCRA counter that may be from a time to come; times in events."""
    return now + burst if tat > now + burst + ROUNDING else tat


class Slices:
    """What a sliding window remembers: events by part of the window, in time's order."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, float] = {}
        self.total = 0.0

    def __len__(self) -> int:
        return len(self.counts)

    def forget(self, oldest: int) -> None:
        """Drop the parts before `oldest`."""
        for part in [part for part in self.counts if part < oldest]:
            self.total -= self.counts.pop(part)

    def until(self, newest: int) -> None:
        """What is counted in a part after `newest` counts in that."""
        if self.counts and next(reversed(self.counts)) > newest:
            early = sum(self.counts.pop(part) for part in [part for part in self.counts if part > newest])
            self.counts[newest] = self.counts.get(newest, 0.0) + early

    def add(self, part: int, cost: float) -> None:
        """Count in a part."""
        self.counts[part] = self.counts.get(part, 0.0) + cost
        self.total += cost


def window(
    slices: Slices, now: float, cost: float, amount: float, period: float
) -> Answer[tuple[int, float]]:
    """Ask a window of `period` seconds that holds `amount`; `now` in seconds. To remember: part and cost."""
    width = period / SLICES
    part = int(now // width)
    slices.until(part)
    slices.forget(part - SLICES)
    excess = slices.total + cost - amount
    wait = 0.0
    if excess > 0.0:
        wait = period
        for oldest, held in sorted(slices.counts.items()):
            excess -= held
            if excess <= 0.0:
                wait = (oldest + SLICES + 1) * width - now
                break
    return slices.total, wait, (part, cost)


class Seen(OrderedDict[str, float]):
    """What a distinct-count limit remembers: value → when last seen, in seconds, oldest first."""

    __slots__ = ()

    def forget(self, until: float) -> None:
        """Drop the values last seen at or before `until`."""
        while self and next(iter(self.values())) <= until:
            self.popitem(last=False)

    def until(self, now: float) -> None:
        """What was seen later than now was seen now."""
        if self and next(reversed(self.values())) > now:
            for value in [value for value, at in self.items() if at > now]:
                self[value] = now

    def see(self, value: str, now: float) -> None:
        """A value was seen."""
        self[value] = now
        self.move_to_end(value)


def distinct(seen: Seen, value: str, now: float, amount: float, period: float) -> Answer[tuple[str, float]]:
    """Ask whether `value` is known, or one more fits among `amount` within `period` seconds."""
    seen.until(now)
    seen.forget(now - period)
    used = float(len(seen))
    room = value in seen or used < amount
    return used, (0.0 if room else next(iter(seen.values())) + period - now), (value, now)
