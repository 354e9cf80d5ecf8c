"""The checks, where the limits are counted in Redis."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mxweir.access import AccessList
from mxweir.domains.match import Match
from mxweir.events import Decision
from mxweir.facts import Facts, Folder
from mxweir.ratelimit.limits import Preview
from mxweir.ratelimit.shared import Shared
from mxweir_policyd.decision import by_limits
from mxweir_policyd.express import Express
from mxweir_policyd.pipeline import Domains, Pipeline
from mxweir_policyd.protocol import Attributes
from mxweir_policyd.shared.row import Row, row_of, write_row_express


class SharedPipeline(Pipeline):
    """A pipeline whose `limits` count only what Redis does not; `shared` is what asks it."""

    def __init__(self, folder: Folder, access: AccessList, domains: Domains, shared: Shared) -> None:
        self.shared = shared
        self.row: Row = row_of(shared)
        """Questions that the lane `gather` has put down, and nobody sent yet."""
        self.gather: Express
        super().__init__(folder, access, domains, shared.limits)

    def decide(self, facts: Facts, now: float, confirmed: Match | None = None) -> Decision:
        """While Redis cannot be asked: the limits of this process have the last word."""
        return self.screen(facts, now, confirmed) or by_limits(self.shared.decide_alone(facts, now))

    def tick(self, now: float) -> None:
        """Forget what is over; call it every second or so."""
        super().tick(now)
        self.shared.tick(now)

    def preview_limits(self, facts: Facts, now: float, then: Callable[[Preview], None]) -> None:
        """Have `then` called with what the limits would say, by what Redis has counted."""
        self.shared.preview(facts, then)

    def write_lane(self) -> None:
        """Write both express lanes anew."""
        super().write_lane()
        self.gather = lane = self.express
        if self.row.shape.counters:
            self.express = partial(self._counted, lane)
            self.gather = (
                # The other lane would charge the limits of this process.
                _leave
                if self.shared.apart
                else write_row_express(self.folder, self._access, self.domains, self.shared, self.row)
            )

    def _counted(self, lane: Express, requests: Sequence[Attributes], replies: list[Any], now: float) -> None:
        """The lane of the limits of this process, with which questions it has let pass."""
        begun = len(replies)
        lane(requests, replies, now)
        passed = requests[: len(replies) - begun]
        if limited := sum(request[-1] != b"relay" for request in passed):
            self.shared.count_alone(limited)


def _leave(*_: object) -> None:
    """Of a Cluster: each question goes the long way, limit by limit."""
