"""Answers questions where limits are counted in Redis; by those of this process while it cannot be asked."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from mxweir.domains.match import Match
from mxweir.facts import Facts
from mxweir.ratelimit.limits import Outcome
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.decision import UNCONFIRMED, by_limits
from mxweir_policyd.deferred import Owed
from mxweir_policyd.express import PASSED
from mxweir_policyd.protocol import Attributes
from mxweir_policyd.shared.pipeline import SharedPipeline
from mxweir_policyd.shared.row import Row

_AT_A_TIME = 32
"""Requests that are gathered before Redis is asked: it begins with them while we gather the next ones.

In one call, Redis and this process would each wait for the other to be done with all of them.
"""

_BESIDE = 16
"""Questions for which another call goes out beside those that Redis has not answered.

Fewer wait for an answer and then travel together, for a call costs both sides as much as some questions do.
"""

_SOON = 0.005
"""Seconds in which Redis has to have answered last for anybody to wait for its next answer.

What a question has waited is missing from the time that Redis has for it.
"""


class SharedAnswerer(Answerer):
    """Sends questions together; each answer is owed until Redis has spoken."""

    pipeline: SharedPipeline

    def answer(self, requests: Sequence[Attributes]) -> Sequence[bytes | Owed]:
        """The replies to requests that came in together."""
        if len(requests) <= _AT_A_TIME:
            return self._answer(requests)
        parts = (requests[first : first + _AT_A_TIME] for first in range(0, len(requests), _AT_A_TIME))
        return [reply for part in parts for reply in self._answer(part)]

    def _answer(self, requests: Sequence[Attributes]) -> Sequence[bytes | Owed]:
        pipeline = self.pipeline
        if not pipeline.shared.available:
            return super().answer(requests)
        now = self.clock()
        replies: list[bytes | Owed] = []
        row, waiting = pipeline.row, len(pipeline.row.owed)
        if not waiting:
            row.since = now
        try:
            self._gather(requests, replies, now)
        finally:  # the questions in the row are asked, and answered, whatever happens to the others
            self.debts.open += len(row.owed) - waiting
            self._send_row(pipeline)
        return replies

    def _gather(self, requests: Sequence[Attributes], replies: list[bytes | Owed], now: float) -> None:
        """Put into the row what can be, and answer the rest."""
        while (begun := len(replies)) < len(requests):
            rest = requests[begun:]
            self.pipeline.gather(rest, replies, now)
            gathered = zip(rest, replies[begun:], strict=False)
            if at_once := [request for request, reply in gathered if reply is PASSED]:
                self.tell_passed(at_once, now)
            if len(replies) < len(requests):
                replies.append(self.decide(requests[len(replies)], now))

    def conclude(
        self, facts: Facts, now: float, started: float, confirmed: Match | None = None
    ) -> bytes | Owed:
        """Decide, tell and answer; the limits come last, and are asked in Redis."""
        if not self.pipeline.shared.available:
            return super().conclude(facts, now, started, confirmed)
        decision = self.pipeline.screen(facts, now, confirmed)
        if decision is None:
            ask: Callable[[Callable[[Sequence[Outcome]], None]], None]
            ask = partial(self.pipeline.shared.decide, (facts,))
            return self.debts.owe(ask, lambda outcomes: self._by_limits(facts, outcomes[0], started))
        if decision.verdict == UNCONFIRMED:
            return self.ask_first(facts, started)
        return self.tell(facts, decision, started)

    def _by_limits(self, facts: Facts, outcome: Outcome, started: float) -> bytes | Owed:
        return self.guarded(lambda: self.tell(facts, by_limits(outcome), started))

    def _send_row(self, pipeline: SharedPipeline) -> None:
        """Ask Redis about what waits, or let it wait until Redis has answered."""
        row = pipeline.row
        if not row.under_way or len(row.asked) >= _BESIDE or row.answered_in > _SOON:
            for part in row.take():
                self._send(pipeline, part)

    def _send(self, pipeline: SharedPipeline, row: Row) -> None:
        """Ask Redis about a row of questions, and settle what is owed for them when it has spoken."""
        gathering, sent = pipeline.row, self.clock()
        gathering.under_way += 1

        def facts() -> Sequence[Facts]:
            return list(map(pipeline.facts, row.asked))

        def heard(outcomes: Mapping[int, Outcome]) -> None:
            gathering.under_way -= 1
            gathering.answered_in = self.clock() - sent
            try:
                # First, so that Redis counts while we write answers.
                self._send_row(pipeline)
            finally:
                self._settle_row(pipeline, row, outcomes)

        decide, waited = pipeline.shared.decide_row, sent - row.since
        decide(row.shape, row.keys, row.names, row.arguments, facts, len(row.asked), heard, waited)

    def _settle_row(self, pipeline: SharedPipeline, row: Row, outcomes: Mapping[int, Outcome]) -> None:
        """Redis has spoken: `outcomes` are those of questions that did not simply pass."""
        passed = row.without(outcomes) if outcomes else row
        pipeline.limits.repeats.add_all(passed.identities)
        self.debts.settle_all(passed.owed, PASSED)
        for number, outcome in outcomes.items():
            self._settle(pipeline, row, number, outcome)
        if passed.asked:
            self.tell_passed(passed.asked, row.since)

    def _settle(self, pipeline: SharedPipeline, row: Row, number: int, outcome: Outcome) -> None:
        """A question that did not simply pass."""
        if outcome.refusal is None:
            pipeline.limits.repeats.add(row.identities[number])
        reply = self.guarded(
            lambda: self.tell(pipeline.facts(row.asked[number]), by_limits(outcome), row.since)
        )
        self.debts.settle(row.owed[number], cast("bytes", reply))
