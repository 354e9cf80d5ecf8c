"""What is left of the time that one answer may take."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Deadline(NamedTuple):
    """A point on the monotonic clock that no engine and no backend can move."""

    at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(clock() + seconds, clock)

    def left(self) -> float:
        """Seconds until the deadline, never below zero."""
        return max(0.0, self.at - self.clock())

    def share(self, part: float) -> "Deadline":
        """An earlier deadline: that part (0 to 1) of what is left."""
        return Deadline(self.clock() + self.left() * part, self.clock)
