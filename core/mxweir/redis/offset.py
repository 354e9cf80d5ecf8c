"""How far a Redis's clock is ahead of ours, so that a call can say until when it is meant. Pure."""

from collections.abc import Callable

_BELIEVED = 10.0
"""Seconds that a reply shows how far Redis's clock is ahead, up to twice that: it may be set back."""


class Offset:
    """How far Redis's clock is ahead of ours, at least: the most that a reply of the last seconds has shown.

    A reply that was under way for long, or waited for our loop, shows less than there is.
    """

    __slots__ = ("_before", "_clock", "_most", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._before: int | None = None
        self._most: int | None = None
        self._since = 0.0

    def learn(self, now: int) -> None:
        """Redis said that it was `now` (µs) when it did what we just heard of."""
        heard = self._clock()
        shown = now - int(heard * 1e6)
        if self._most is None or heard - self._since > _BELIEVED:
            self._before, self._most, self._since = self._most, shown, heard
        else:
            self._most = max(self._most, shown)

    def not_after(self, timeout: float) -> int:
        """Redis's time (µs) until which a call with this timeout is meant; 0 where it is not known yet.

        Half of it: the answer needs as long to come back.
        """
        if self._most is None:
            return 0
        ahead = self._most if self._before is None else max(self._most, self._before)
        return int((self._clock() + timeout / 2) * 1e6) + ahead
