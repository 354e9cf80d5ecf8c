"""Answers questions by the pipeline in force: at once, or later where a backend is to be asked.

Nothing is decided here. Whatever goes wrong in deciding, Postfix gets `DUNNO`
and goes on with its own restrictions: a fault of ours neither refuses mail nor
lets anybody relay.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from mxweir.domains.match import Match, State
from mxweir.events import Decided, Decision, Observer, Passed, Trouble
from mxweir.facts import Facts
from mxweir_policyd import maps
from mxweir_policyd.decision import UNCONFIRMED
from mxweir_policyd.deferred import Debts, Owed
from mxweir_policyd.express import PASSED
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import Attributes, format_reply
from mxweir_policyd.socketmap import Lookup

_TOGETHER = 64
"""Times that are told in a row: else telling costs a question that comes alone a tenth of all it costs."""

Confirm = Callable[[str, Callable[[Match], None]], None]
"""Asks PostgreSQL about a folded domain, and calls with what it says."""


class Answerer:
    """Answers requests by the pipeline in force, and tells the observers; shared by all connections.

    Requests that simply passed are told together, as a number, and with
    `tell_each` with the facts of each.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Callable[[], float],
        observe: Observer,
        confirm: Confirm | None = None,
        *,
        tell_each: bool = True,
    ) -> None:
        self.pipeline = pipeline
        self.clock = clock
        self.observe = observe
        self.confirm: Confirm = confirm or _nobody_to_ask
        self.debts = Debts()
        self._tell_each = tell_each
        self._untold: list[tuple[int, float]] = []

    def answer(self, requests: Sequence[Attributes]) -> Sequence[bytes | Owed]:
        """The replies to requests that came in together."""
        now = self.clock()
        replies: list[bytes | Owed] = []
        self.pipeline.express(requests, replies, now)
        if 0 < len(replies) == len(requests):
            self.tell_passed(requests, now)
        else:
            self._go_on(requests, replies, now)
        return replies

    def _go_on(self, requests: Sequence[Attributes], replies: list[bytes | Owed], now: float) -> None:
        """Answer those that the express lane has left, each the long way, and by the lane what is between."""
        begun = 0
        while True:
            if len(replies) > begun:
                self.tell_passed(requests[begun : len(replies)], now)
            if len(replies) == len(requests):
                return
            replies.append(self.decide(requests[len(replies)], now))
            begun = len(replies)
            self.pipeline.express(requests[begun:], replies, now)

    def look_up(self, lookup: Lookup) -> bytes | Owed:
        """The answer to a lookup in a map."""
        found = self._found(lookup)
        if not isinstance(found, maps.Unconfirmed):
            return found

        def finish(confirmed: Match) -> bytes:
            return cast("bytes", self._found(lookup, confirmed))

        return self.debts.owe(partial(self.confirm, found.domain), finish)

    def _found(self, lookup: Lookup, confirmed: Match | None = None) -> bytes | maps.Unconfirmed:
        try:
            return maps.answer(lookup, self.pipeline.domains, confirmed)
        except Exception as error:  # noqa: BLE001 - whatever it is, Postfix gets its answer
            what = f"{type(error).__name__}: {error}"
            self.observe(Trouble("internal error, answered TEMP", what, "error"))
            return maps.FAILED

    def decide(self, request: Attributes, now: float) -> bytes | Owed:
        """The long way of one request, whose last byte came `now`."""
        return self.guarded(lambda: self.conclude(self.pipeline.facts(request), now, now))

    def conclude(
        self, facts: Facts, now: float, started: float, confirmed: Match | None = None
    ) -> bytes | Owed:
        """Decide, tell and answer a question that came at `started` by the clock.

        `confirmed` is what PostgreSQL said, if it was asked.
        """
        decision = self.pipeline.decide(facts, now, confirmed)
        if decision.verdict == UNCONFIRMED:
            return self.ask_first(facts, started)
        return self.tell(facts, decision, started)

    def ask_first(self, facts: Facts, started: float) -> bytes | Owed:
        """Ask PostgreSQL about the recipient's domain, and decide then."""

        def finish(confirmed: Match) -> bytes | Owed:
            return self.guarded(lambda: self.conclude(facts, self.clock(), started, confirmed))

        return self.debts.owe(partial(self.confirm, facts.recipient.domain), finish)

    def tell(self, facts: Facts, decision: Decision, started: float) -> bytes:
        """Tell the observers of a decision; returns the reply that it is."""
        self.observe(Decided(facts, decision, self.clock() - started))
        return format_reply(decision.reply)

    def tell_passed(self, requests: Sequence[Attributes], started: float) -> None:
        """Tell the observers of requests that simply passed; those who want no facts, before long."""
        seconds = self.clock() - started
        if self._tell_each:
            self.observe(Passed(len(requests), seconds, list(map(self.pipeline.facts, requests))))
            return
        self._untold.append((len(requests), seconds))
        if len(self._untold) >= _TOGETHER:
            self.tell_untold()

    def tell_untold(self) -> None:
        """Tell of all that passed until now; call it every second or so."""
        untold, self._untold = self._untold, []
        for questions, seconds in untold:
            self.observe(Passed(questions, seconds))

    def guarded(self, answer: Callable[[], bytes | Owed]) -> bytes | Owed:
        """What `answer` says, or `DUNNO` if it fails."""
        try:
            return answer()
        except Exception as error:  # noqa: BLE001 - whatever it is, Postfix gets its answer
            what = f"{type(error).__name__}: {error}"
            self.observe(Trouble("internal error, answered DUNNO", what, "error"))
            return PASSED


def _nobody_to_ask(_: str, resume: Callable[[Match], None]) -> None:
    resume(Match(State.FAILED))
