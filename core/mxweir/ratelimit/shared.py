"""Limits that many processes and hosts count together, in Redis.

A row of questions is answered by one script call for each shape among them
(`shapes`), or in a Cluster limit by limit, each where its key is. What is known
here is not asked: repeated questions, and keys that Redis refused a moment ago
(`refusals`). When Redis gives no answer in its time, this process's own limits
decide and are charged.

Each charge is in exactly one of the two. Nothing that was counted here is copied to
Redis later; and a call that reaches Redis after we stopped waiting for it
does nothing, because it says until when (by Redis's own clock) it is meant.
"""

from collections.abc import Callable, Sequence

from mxweir.clock import Clock
from mxweir.events import Observer
from mxweir.facts import AnyFacts, Facts
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.refusals import Refusals
from mxweir.ratelimit.shapes import Shapes
from mxweir.redis.servers import Servers
from mxweir.trail import Step


class Shared:
    """The limits of one configuration, counted in Redis."""

    def __init__(
        self, limits: Limits, servers: Servers, prefix: str, clock: Clock, observe: Observer, timeout: float
    ) -> None:
        """`limits` decide when Redis does not, by their share; `clock` is theirs; `timeout` in seconds."""
        self.limits = limits
        self.shapes = Shapes(limits, prefix)
        self.refusals: dict[str, Refusals] = {}
        """By limit."""
        raise NotImplementedError

    def decide(self, facts: Sequence[AnyFacts], then: Callable[[Sequence[Outcome]], None]) -> None:
        """Ask all limits of these questions, and charge them where none refuses.

        `then` gets the outcomes in the questions' order, exactly once, within the timeout; it may
        before this returns.
        """

    def preview(self, facts: Facts, then: Callable[[tuple[Outcome, list[Step]]], None]) -> None:
        """What `decide` would say, with each limit's figures; charges nothing."""

    def forget(self, limit: str, key: str) -> None:
        """A counter was reset: what this process remembers of it no longer holds."""

    def tick(self, now: float) -> None:
        """Forget what is over; call it every second or so."""
