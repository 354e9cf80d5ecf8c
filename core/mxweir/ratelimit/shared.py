"""Limits that many processes and hosts count together, in Redis.

A row of questions is answered by one script call for each shape among them
(`shapes`, `together`), or in a Cluster limit by limit, each where its key is
(`apart`). What is known here is not asked: repeated questions, and keys that Redis
refused a moment ago (`refusals`). When Redis gives no answer in its time, this
process's own limits decide and are charged.

Each charge is in exactly one of the two. Nothing that was counted here is copied to
Redis later; and a call that reaches Redis after we stopped waiting for it
does nothing, because it says until when (by Redis's own clock) it is meant.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, cast

from mxweir.clock import Clock
from mxweir.events import Counted, Observed, Observer, Trouble
from mxweir.facts import AnyFacts
from mxweir.ratelimit.apart import Apart
from mxweir.ratelimit.limits import (
    NO_OBJECTION,
    Limits,
    Look,
    Outcome,
    Preview,
    Refusal,
    identity_of,
    looked,
    show_key,
)
from mxweir.ratelimit.refusals import Refusals
from mxweir.ratelimit.shapes import Peek, Question, Said, Shape, Shapes
from mxweir.ratelimit.talkers import Talkers
from mxweir.ratelimit.together import SCRIPT, Together
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers
from mxweir.trail import Step

MOST_ASKED = 2000
"""Counters that one question may have in Redis, twice as many as a message has recipients.

A call holds up whoever else asks that Redis, some 10 µs a counter: for those of a message to a thousand in
ten limits by recipient longer than we wait, and the other hosts' questions would fail with it.
"""

_MOST_REFUSALS = 100_000
"""Keys remembered as refused, for all limits together."""


class Asker(Protocol):
    """How Redis is asked."""

    def ask(self, questions: Sequence[Question], then: Callable[[Sequence[Said] | RedisError], None]) -> None:
        """Ask about questions of one shape, and charge those that nothing refuses."""

    def peek(self, question: Question, then: Callable[[Peek | RedisError], None]) -> None:
        """Ask what is used; charges nothing."""


class Shared:
    """The limits of one configuration, counted in Redis."""

    def __init__(
        self,
        limits: Limits,
        servers: Servers,
        prefix: str,
        clock: Clock,
        observe: Observer,
        timeout: float,
        script: Script = SCRIPT,
        talkers: Talkers | None = None,
    ) -> None:
        """`limits` decide when Redis does not, by their share; `clock` is theirs; `timeout` in seconds.

        `talkers` count who asks, across configurations.
        """
        self.limits = limits
        self.shapes = Shapes(limits, prefix)
        each = _MOST_REFUSALS // max(1, len(limits.limits))
        self.refusals = {limit.name: Refusals(each) for limit in limits.limits}
        """By limit."""
        self._talkers = Talkers(clock()) if talkers is None else talkers
        self._servers = servers
        self._clock = clock
        self._observe = observe
        self._asker: Asker = (
            Apart(servers, clock, timeout, script)
            if servers.clustered
            else Together(servers, timeout, script)
        )
        self._batch = 1 if servers.clustered else None

    def decide(self, facts: Sequence[AnyFacts], then: Callable[[Sequence[Outcome]], None]) -> None:
        """Ask all limits of these questions, and charge them where none refuses.

        `then` gets the outcomes in the questions' order, exactly once, within the timeout; it may
        before this returns.
        """
        row = _Row(facts, then)
        asked: dict[Shape, list[tuple[int, Question]]] = {}
        now = self._clock()
        for place, one in enumerate(facts):
            question = None if identity_of(one) in self.limits.repeats else self.shapes.question(one)
            outcome = self.known(question, now) if question else NO_OBJECTION
            if question is None or outcome is not None:
                row.outcomes[place] = outcome
            elif len(question.keys) > MOST_ASKED:
                row.outcomes[place] = self.decide_alone(one, now)
            else:
                asked.setdefault(question.shape, []).append((place, question))
        for shape, placed in asked.items():
            most = self._batch or shape.most
            for begin in range(0, len(placed), most):
                self._ask(row, placed[begin : begin + most])
        row.settle()

    @property
    def apart(self) -> bool:
        """Whether each limit is asked by itself, because their keys are on different servers."""
        return self._servers.clustered

    @property
    def available(self) -> bool:
        """Whether Redis would be asked now."""
        return self._servers.available

    def decide_row(
        self,
        shape: Shape,
        keys: Sequence[str],
        names: Sequence[bytes],
        arguments: Sequence[bytes],
        facts: Callable[[], Sequence[AnyFacts]],
        questions: int,
        then: Callable[[Mapping[int, Outcome]], None],
        waited: float,
    ) -> None:
        """Ask about so many questions of one shape that are packed already, and known to be worth asking.

        `then` gets the outcomes of those that did not simply pass, by their number. Not for a Cluster.
        `facts` makes the facts of all when there is a need for them. The first has `waited` so many seconds
        of the timeout.
        """
        sent = self._clock()
        self._talkers.row(shape, keys)

        def heard(answer: Sequence[Said] | RedisError) -> None:
            outcomes: Mapping[int, Outcome] = {}
            try:
                if isinstance(answer, RedisError):
                    outcomes = dict(enumerate(self._alone(facts(), answer)))
                else:
                    self._observe(Counted("redis", questions))
                    if answer:
                        asked = [self.shapes.question(one) for one in facts()]
                        outcomes = self._objections(answer, asked, sent)
            finally:  # a fault of ours may cost a limit, and nobody an answer
                then(outcomes)

        cast("Together", self._asker).send(shape, names, arguments, questions, heard, waited)

    def decide_alone(self, facts: AnyFacts, now: float) -> Outcome:
        """What the limits of this process say, while Redis cannot be asked."""
        if self.limits.asked_at(facts.state, facts.context):
            self.count_alone(1)
        return self.limits.decide(facts, now)

    def count_alone(self, questions: int) -> None:
        """So many were answered by the limits of this process."""
        self._observe(Counted("process", questions))

    def known(self, question: Question, now: float) -> Outcome | None:
        """The refusal that Redis would repeat, if it is known here; charges nothing."""
        for counter, key, cost in zip(question.shape.counters, question.keys, question.costs, strict=True):
            refused = self.refusals[counter.limit.name].find(key, cost, now)
            if refused is not None:
                self._observe(Counted("refusals", 1))
                self._talkers.one(counter, key)
                limit = counter.limit
                wait = refused.free - now
                return Outcome(Refusal(limit, show_key(key), refused.figure, wait, limit.rate(key)), ())
        return None

    def preview(self, facts: AnyFacts, then: Callable[[Preview], None]) -> None:
        """What `decide` would say, with each limit's figures; charges nothing."""
        question = self.shapes.question(facts)
        if question is None:
            then(self.limits.preview(facts, self._clock()))
        else:
            self._asker.peek(question, partial(self._previewed, facts, question, then))

    def forget(self, limit: str, key: str) -> None:
        """A counter was reset: what this process remembers of it no longer holds."""
        for one in self.limits.limits:
            if one.name == limit:
                one.table.drop(key)
                self.refusals[limit].forget(key)

    def tick(self, now: float) -> None:
        """Forget what is over; call it every second or so."""
        self._talkers.tick(now)
        for refusals in self.refusals.values():
            refusals.tick(now)

    def _ask(self, row: "_Row", placed: Sequence[tuple[int, Question]]) -> None:
        row.open += 1
        sent = self._clock()
        questions = [question for _, question in placed]
        self._talkers.row(questions[0].shape, [key for question in questions for key in question.keys])
        self._asker.ask(questions, partial(self._answered, row, placed, sent))

    def _answered(
        self,
        row: "_Row",
        placed: Sequence[tuple[int, Question]],
        sent: float,
        answer: Sequence[Said] | RedisError,
    ) -> None:
        if isinstance(answer, RedisError):
            outcomes = self._alone([row.facts[place] for place, _ in placed], answer)
        else:
            self._observe(Counted("redis", len(placed)))
            objections = self._objections(answer, [question for _, question in placed], sent)
            outcomes = [objections.get(number, NO_OBJECTION) for number in range(len(placed))]
        for (place, _), outcome in zip(placed, outcomes, strict=True):
            row.outcomes[place] = outcome
            if outcome.refusal is None and (identity := identity_of(row.facts[place])):
                self.limits.repeats.add(identity)
        row.settle()

    def _alone(self, facts: Sequence[AnyFacts], error: RedisError) -> Sequence[Outcome]:
        """What the limits of this process say, because Redis does not."""
        if error.kind in ("nonsense", "error"):
            self._observe(Trouble("Redis cannot count a limit", str(error), "error"))
        self.count_alone(len(facts))
        now = self._clock()
        return [self._decide(one, now) for one in facts]

    def _decide(self, facts: AnyFacts, now: float) -> Outcome:
        """What the limits of this process say; a fault at one question leaves none without its answer."""
        try:
            return self.limits.decide(facts, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others in the row get theirs
            self._observe(Trouble("internal error, limits passed over", repr(error), "error"))
            return NO_OBJECTION

    def _objections(
        self, said: Sequence[Said], questions: Sequence[Question | None], sent: float
    ) -> dict[int, Outcome]:
        """What Redis said, by the number of the question."""
        outcomes: dict[int, Outcome] = {}
        for one in said:
            question = cast("Question", questions[one.question])
            before = outcomes.get(one.question, NO_OBJECTION)
            outcomes[one.question] = self._object(before, question, one, sent)
        return outcomes

    def _object(self, outcome: Outcome, question: Question, said: Said, sent: float) -> Outcome:
        """A limit without room is added to what the others said."""
        counter, key = question.shape.counters[said.counter], question.keys[said.counter]
        limit, shown, figure = counter.limit, show_key(key), counter.figure(said.used)
        if limit.observe:
            return Outcome(None, (*outcome.observed, Observed(limit.name, shown, figure)))
        if not limit.value:
            # From when it was asked: the answer was under way for a part of the wait.
            refusals = self.refusals[limit.name]
            refusals.add(key, sent + said.wait, question.costs[said.counter], figure, sent)
        return Outcome(Refusal(limit, shown, figure, said.wait, limit.rate(key)), outcome.observed)

    def _previewed(
        self,
        facts: AnyFacts,
        question: Question,
        then: Callable[[Preview], None],
        peek: Peek | RedisError,
    ) -> None:
        if isinstance(peek, RedisError):
            outcome, steps = self.limits.preview(facts, self._clock())
            note = f"Redis did not answer ({peek.kind}): what this process counted by itself"
            then((outcome, [Step("limits", "", "", "pass", note=note), *steps]))
            return
        then(looked(self._looks(facts, question, peek), repeated=peek.repeated))

    def _looks(self, facts: AnyFacts, question: Question, peek: Peek) -> Iterator[Look]:
        """The figures of all limits that are asked at this moment, also of those that do not count."""
        asked = zip(question.shape.counters, question.keys, peek.figures, strict=True)
        figures = {(counter.limit, key): (counter.figure(used), wait) for counter, key, (used, wait) in asked}
        for limit in self.limits.asked_at(facts.state, facts.context):
            for key in [key for key, _, _ in limit.turns(facts)] or [""]:
                yield Look(limit, key, *figures.get((limit, key), ("0/unlimited", 0.0)))


class _Row:
    """Questions that came together, and what was said to them so far."""

    __slots__ = ("_then", "facts", "open", "outcomes")

    def __init__(self, facts: Sequence[AnyFacts], then: Callable[[Sequence[Outcome]], None]) -> None:
        self.facts = facts
        self.outcomes: list[Outcome | None] = [None] * len(facts)
        self.open = 1
        """Calls that are not answered, and one until all are made."""
        self._then = then

    def settle(self) -> None:
        """One more is answered."""
        self.open -= 1
        if not self.open:
            self._then(cast("Sequence[Outcome]", self.outcomes))
