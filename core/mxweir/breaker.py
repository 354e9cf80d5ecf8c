"""When to stop asking a backend that fails, and when to ask it again. Pure: the caller hands in the time.

    closed ──── share of failures or of slow calls reached ───→ open
      ↑                                                          │ after `pause`
      └── `probes` good calls, one after the other ── half-open ←┘
                                                       └── a bad one ──→ open again

Closed, all calls pass, and the last `window` seconds are kept in ten slices:
whatever the traffic, no more than eleven triples of numbers. Open, no call
passes. Half-open, one call at a time passes: a real one, for what answers a ping
may still not work; and one, because it may have to wait in vain.

A call that passes gets a permit, and comes back with it. A permit remembers in
which round it was given, so that a call that began before the breaker opened
says nothing about the backend afterwards, however late it ends.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

_SLICES = 10


class State(StrEnum):
    """Whether calls pass: all, one at a time, or none."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Settings:
    """When a breaker opens and closes; times in seconds, shares from 0 to 1.

    It opens once there were at least `min_calls` within `window`, and at least
    the share `failures` of them failed, or the share `slow` took `slow_after` or
    longer (a failure may be slow as well).
    """

    window: float = 30.0
    min_calls: int = 5
    failures: float = 0.5
    slow: float = 0.8
    slow_after: float = 4.0
    pause: float = 10.0
    probes: int = 3


class Permit(NamedTuple):
    """Leave for one call; to be given back by `record` or `forget`."""

    round: int


class Change(NamedTuple):
    """A breaker has opened (from closed), or closed; `why` in words, `seconds` it was in the former state."""

    state: State
    why: str
    seconds: float


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    failed: int = 0
    slow: int = 0

    def add(self, calls: int, failed: int, slow: int) -> None:
        """Count so many more."""
        self.calls += calls
        self.failed += failed
        self.slow += slow


class Breaker:
    """One backend's breaker. `now` is a time in seconds on any clock that never runs backwards."""

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        """May be replaced at any time; the state stays."""
        self.state = State.CLOSED
        self._permit = Permit(0)
        """That of this round."""
        self._slices = deque[_Slice]()
        self._all = _Slice(0)
        """The slices' numbers together."""
        self._since = now
        """When it closed, or opened for the first time since it was closed."""
        self._until = now
        self._good = 0
        self._probing = False

    def would_allow(self, now: float) -> bool:
        """Whether `allow` would give a permit; changes nothing."""
        if self.state is State.OPEN:
            return now >= self._until
        return self.state is State.CLOSED or not self._probing

    def allow(self, now: float) -> Permit | None:
        """Leave for one call, or None."""
        if not self.would_allow(now):
            return None
        if self.state is State.OPEN:
            self._enter(State.HALF_OPEN)
        self._probing = self.state is State.HALF_OPEN
        return self._permit

    def record(self, permit: Permit, ok: bool, seconds: float, now: float) -> Change | None:
        """A call has ended, after so many seconds; a change that is worth telling, if it made one.

        That a probe failed and the breaker is open again is none: an outage is
        told at its begin and at its end.
        """
        if permit.round != self._permit.round:
            return None
        slow = seconds >= self.settings.slow_after
        if self.state is State.CLOSED:
            return self._count(ok, slow, now)
        self._probing = False
        if not ok or slow:
            self._open(now)
            return None
        self._good += 1
        if self._good < self.settings.probes:
            return None
        return self._close(now)

    def forget(self, permit: Permit) -> None:
        """A call ended for reasons of our own (cancelled): it says nothing about the backend."""
        if permit.round == self._permit.round:
            self._probing = False

    def _count(self, ok: bool, slow: bool, now: float) -> Change | None:
        current, all_ = self._slice(now), self._all
        current.add(1, not ok, slow)
        all_.add(1, not ok, slow)
        calls, failed, late = all_.calls, all_.failed, all_.slow
        limits = self.settings
        if calls < limits.min_calls:
            return None
        if failed >= limits.failures * calls and failed:
            why = f"{failed} of {calls} calls in {limits.window:g} s failed"
        elif late >= limits.slow * calls and late:
            why = f"{late} of {calls} calls in {limits.window:g} s took {limits.slow_after:g} s or longer"
        else:
            return None
        change = Change(State.OPEN, why, now - self._since)
        self._since = now
        self._open(now)
        return change

    def _slice(self, now: float) -> _Slice:
        """The slice of the window that `now` lies in; those that have left the window are dropped."""
        number = int(now * _SLICES // self.settings.window)
        while self._slices and self._slices[0].number <= number - _SLICES:
            left = self._slices.popleft()
            self._all.add(-left.calls, -left.failed, -left.slow)
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]

    def _open(self, now: float) -> None:
        self._until = now + self.settings.pause
        self._enter(State.OPEN)

    def _close(self, now: float) -> Change:
        change = Change(State.CLOSED, f"{self._good} calls in a row were good", now - self._since)
        self._since = now
        self._enter(State.CLOSED)
        return change

    def _enter(self, state: State) -> None:
        self.state = state
        self._permit = Permit(self._permit.round + 1)
        self._good = 0
        self._probing = False
        self._slices.clear()
        self._all = _Slice(0)
