"""What Redis refused, remembered until it could next pass; bounded. Pure.

Under a flood nearly every question is refused by the same limit for the same
key. Until that key has room again, Redis would say nothing else.
"""

from typing import NamedTuple

from mxweir.ratelimit.memory import Generations

LONGEST = 10.0
"""Seconds ahead at most: an operator may reset the key, or Redis may have been emptied."""


class Refused(NamedTuple):
    """No room for a cost nor a larger one until the key is `free`; believed `until`; times in seconds."""

    until: float
    free: float
    cost: float
    figure: str


class Refusals(Generations[Refused | None]):
    """One limit's keys that have no room."""

    def __init__(self, capacity: int) -> None:
        super().__init__(LONGEST, capacity)

    def add(self, key: str, free: float, cost: float, figure: str, now: float) -> None:
        """Remember that Redis refused; times in seconds."""
        self.put(key, Refused(min(free, now + LONGEST), free, cost, figure))

    def find(self, key: str, cost: float, now: float) -> Refused | None:
        """What speaks against a question, if anything is known."""
        found = self.get(key, None)
        return found if found is not None and now < found.until and cost >= found.cost else None

    def forget(self, key: str) -> None:
        """The key may have room again."""
        self.young.pop(key, None)
        self.old.pop(key, None)
