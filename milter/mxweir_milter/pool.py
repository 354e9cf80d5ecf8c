"""The addresses of one engine: which of them is asked next, and how many messages each has in hand.

A scanner that is given more than it can do does not get faster, only later: it
lets them wait where nobody sees them. So each address has a number of slots, and
a message that finds none waits here, in turn and for a short time. Each address
also has a breaker (`mxweir.breaker`). Both together are its gate, which outlives
a reload of the configuration.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from mxweir.breaker import Breaker, Permit
from mxweir_milter.engines import Engine


class Gate:
    """What is known of one address: its breaker, and the scans it has in hand."""

    def __init__(self, breaker: Breaker, slots: int) -> None:
        self.breaker = breaker
        self.slots = slots
        """Scans that it may have in hand; may be changed at any time."""
        self.in_hand = 0

    def has_room(self, now: float) -> bool:
        """Whether a message may be sent there now."""
        return self.in_hand < self.slots and self.breaker.would_allow(now)

    def enter(self, now: float) -> Permit | None:
        """Take a slot, if there is one."""
        permit = self.breaker.allow(now) if self.in_hand < self.slots else None
        self.in_hand += permit is not None
        return permit


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One address; `position` is its engine's in the configuration, `address` its own among that one's."""

    engine: Engine
    gate: Gate
    position: int = 1
    address: int = 1


class Turn(NamedTuple):
    """Leave to have one message scanned at one address; to be given back to its pool."""

    pool: "Pool"
    lane: Lane
    permit: Permit


@dataclass(slots=True, eq=False)
class _Place:
    """One message in the queues of so many pools; the first that has a slot gives it."""

    turn: asyncio.Future[Turn | None]
    pools: int

    def leave(self) -> None:
        """One of them has none to give; where that was the last, nobody shall wait any more."""
        self.pools -= 1
        if not self.pools:
            self.give_up()

    def give_up(self) -> None:
        """Wait no longer."""
        if not self.turn.done():
            self.turn.set_result(None)


class Pool:
    """The addresses of one engine; lives on the loop that scans."""

    def __init__(self, lanes: Sequence[Lane], clock: Callable[[], float] = monotonic) -> None:
        self.lanes = tuple(lanes)
        self._clock = clock
        self._waiting = OrderedDict[_Place, None]()
        """In the order in which they came."""
        self._next = 0

    @property
    def name(self) -> str:
        """The engine's."""
        return self.lanes[0].engine.name

    @property
    def waiting(self) -> int:
        """Messages that wait for a slot."""
        return len(self._waiting)

    def is_open(self) -> bool:
        """Whether the breaker of any address lets a message through."""
        now = self._clock()
        return any(lane.gate.breaker.would_allow(now) for lane in self.lanes)

    def has_room(self, but: Collection[Lane] = ()) -> bool:
        """Whether there is a slot at an address other than these."""
        now = self._clock()
        return any(lane.gate.has_room(now) for lane in self.lanes if lane not in but)

    def take(self, but: Collection[Lane] = ()) -> Turn | None:
        """A slot at the address with the least in hand, those named left out; None if there is none.

        Nor is there one while others wait, who came first.
        """
        return None if self._waiting else self._take(but)

    async def wait(self, seconds: float, *others: "Pool") -> Turn | None:
        """A slot as soon as there is one, here or at the others; None when it is not there in time."""
        pools = (self, *others)
        if turn := next(filter(None, (pool.take() for pool in pools)), None):
            return turn
        loop = asyncio.get_running_loop()
        place = _Place(loop.create_future(), len(pools))
        for pool in pools:
            pool._waiting[place] = None  # noqa: SLF001 -- of this class
        timer = loop.call_later(seconds, place.give_up)
        try:
            return await place.turn
        except asyncio.CancelledError:
            _refuse(place)
            raise
        finally:
            timer.cancel()
            for pool in pools:
                pool._waiting.pop(place, None)  # noqa: SLF001 -- of this class

    def give_back(self, turn: Turn) -> None:
        """A scan has ended, and its breaker has been told: its slot goes to whoever waits first."""
        turn.lane.gate.in_hand -= 1
        while self._waiting:
            place = next(iter(self._waiting))
            # Cancelled, or served elsewhere, in this very turn of the loop, its waiter has not run yet.
            if not place.turn.done():
                if (free := self._take()) is None:
                    break
                place.turn.set_result(free)
            del self._waiting[place]
        if self._waiting and not self.is_open():
            self._send_away()

    def _take(self, but: Collection[Lane] = ()) -> Turn | None:
        now = self._clock()
        lanes: Sequence[Lane] = self.lanes
        if len(lanes) > 1:
            # Beginning with another one each time, so that equals share the work.
            self._next = (self._next + 1) % len(lanes)
            turned = self.lanes[self._next :] + self.lanes[: self._next]
            lanes = sorted(turned, key=lambda lane: lane.gate.in_hand)
        for lane in lanes:
            if lane not in but and (permit := lane.gate.enter(now)):
                return Turn(self, lane, permit)
        return None

    def _send_away(self) -> None:
        """The breakers have opened: nobody shall wait for them."""
        for place in self._waiting:
            place.leave()
        self._waiting.clear()


def _refuse(place: _Place) -> None:
    """Wait no longer. A slot that was given in this very moment goes on to the next one."""
    if not place.turn.done():
        place.turn.cancel()
    elif not place.turn.cancelled() and (turn := place.turn.result()):
        turn.lane.gate.breaker.forget(turn.permit)
        turn.pool.give_back(turn)
