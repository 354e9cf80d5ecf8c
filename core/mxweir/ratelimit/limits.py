"""Which limits a question takes part in, by which key, at what cost, in which order.

Limits are asked in the order written; the first that refuses ends it, and
nothing is charged: not to it, not to those before it, not to those after it. So
a flood that its sender's limit refuses cannot use up the mailbox of the victim.

Units follow from when Postfix knows what: recipients are counted at RCPT, where
each is asked about once; messages and bytes at END-OF-MESSAGE, where the size is
true. Postfix's policy_context narrows it further: `limits` runs those by
recipient, `message` those by message and byte, none runs both.

Limits by what only the content shows are the milter's. It asks all of them at
END-OF-MESSAGE, once for the whole message: it can only be refused as a whole, and
then it costs nothing. A message may have several recipients, authors or addresses
for replies, so it takes part in such a limit by several keys, each at its own cost.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from mxweir.address import bounded, hashed
from mxweir.config import LimitRule
from mxweir.events import Observed
from mxweir.facts import (
    CONTENT_READERS,
    MANY,
    NOBODY,
    READERS,
    UNKNOWN,
    AnyFacts,
    ContentFacts,
    Folder,
    Sender,
)
from mxweir.ratelimit.arithmetic import ROUNDING, Answer
from mxweir.ratelimit.memory import DistinctTable, GcraTable, Pace, Paces, Repeats, Row, Table, WindowTable
from mxweir.ratelimit.rate import Rate
from mxweir.trail import Step

SEPARATOR = "\n"
"""Between the parts of a key: the one character that no attribute can hold."""

LONGEST_JOINED = 320
"""Characters in a key of three or more parts before it is hashed.

Two parts never make more than 1.3 KB, and need no look: each has up to 255 bytes, and the widest character
of one sets the width of both. Nor do 320 characters.
"""

_MOST_TURNS = 1000
"""Keys by which one message takes part in one limit: as many as it may have recipients."""

_UNLIMITED = Pace(float("inf"), 1.0, float("inf"))
_UNITS: dict[tuple[bytes, bytes], tuple[str, ...]] = {
    (b"RCPT", b""): ("recipient",),
    (b"RCPT", b"limits"): ("recipient",),
    (b"END-OF-MESSAGE", b""): ("message", "byte"),
    (b"END-OF-MESSAGE", b"message"): ("message", "byte"),
}
_CONTENT = (b"END-OF-MESSAGE", b"")

Turn = tuple[str, str, float]
"""What a limit is asked: for which key, by which value (empty for plain limits), at what cost."""

_NO_TURN: Turn = ("", "", 0.0)


class Refusal(NamedTuple):
    """A limit that has no room: for which key, what is used, seconds until there could be, the key's rate."""

    limit: "Limit"
    key: str
    figure: str
    wait: float
    rate: Rate


class Outcome(NamedTuple):
    """What the limits say: at most one refusal, and those that only observe."""

    refusal: Refusal | None
    observed: tuple[Observed, ...]


Preview = tuple[Outcome, list[Step]]
"""What limits would say, with the figures of each."""

NO_OBJECTION = Outcome(None, ())


class Look(NamedTuple):
    """A limit's figures; `key` is empty where the question lacks it, `wait` in seconds, 0: it passes."""

    limit: "Limit"
    key: str
    figure: str
    wait: float


class Limit:
    """One limit with its counters."""

    def __init__(self, rule: LimitRule, folder: Folder, capacity: int, share: float = 1.0) -> None:
        self.rule = rule
        self.share = share
        self.name = rule.name
        self.observe = rule.mode == "observe"
        self.by_byte = rule.unit == "byte"
        self.value: Callable[[Any], str] | None = _reader((rule.distinct,)) if rule.distinct else None
        self._plain = self.value is None and not self.by_byte
        self.key = _reader(rule.key)
        own = {_folded(rule.key, text, folder): rate for text, rate in rule.overrides.items()}
        self._own = own
        self.paces = _paces(rule, own)
        """As written; the table's are this process's share of them."""
        self.table = _table(rule, self.paces.scaled(share), capacity)

    @property
    def about_mailbox(self) -> bool:
        """Whether it protects the recipient rather than holding back a sender."""
        return all(key in ("recipient", "recipient_domain") for key in self.rule.key)

    def rate(self, key: str) -> Rate:
        """What the key may: its own rate, else the limit's."""
        return self._own.get(key) or self.rule.rate

    @property
    def weighted(self) -> bool:
        """Whether what it costs differs from question to question."""
        return self.by_byte

    def asked_at(self, moment: tuple[bytes, bytes]) -> bool:
        """Whether it is asked at this protocol_state with this policy_context."""
        return self.rule.unit in _UNITS.get(moment, ())

    def what(self, facts: AnyFacts) -> tuple[str, float]:
        """The value to count among others (empty for plain limits) and the cost."""
        value = self.value(facts) if self.value else ""
        return value, float(facts.size_in_bytes) if self.by_byte else 1.0

    def turns(self, facts: Any) -> Sequence[Turn]:
        """What the limit is asked about a question; nothing where the question lacks its key."""
        key = self.key(facts)
        if not key:
            return ()
        if self._plain:
            return ((key, "", 1.0),)
        value, cost = self.what(facts)
        return ((key, value, cost),)

    def ask(self, key: str, value: str, cost: float, now: float) -> Answer[Any]:
        """Is there room? Counts nothing.

        A share of a limit never refuses for good what all of it has room for: a
        large message takes no more than the share has.
        """
        if self.share < 1.0 and cost <= self.paces.of(key).burst:
            cost = min(cost, self.table.capacity(key))
        return self.table.ask(key, value, cost, now)

    def figure(self, key: str, used: float) -> str:
        """`33/1000`."""
        capacity = self.table.capacity(key)
        return f"{math.ceil(used - ROUNDING)}/{'unlimited' if capacity == float('inf') else int(capacity)}"


class ContentLimit(Limit):
    """One limit by what the content shows; asked about `ContentFacts`."""

    def __init__(self, rule: LimitRule, folder: Folder, capacity: int, share: float = 1.0) -> None:
        super().__init__(rule, folder, capacity, share)
        self._by_recipient = any(name in ("recipient", "recipient_domain") for name in rule.key)
        self._by_author = any(name in ("from", "from_org") for name in rule.key)
        self._by_replier = any(name in ("reply_to", "reply_to_org") for name in rule.key)

    @property
    def weighted(self) -> bool:
        """By recipient, a message costs as many as it has; by message alone, all cost the same."""
        return self.rule.unit != "message" and not self.rule.distinct

    def asked_at(self, moment: tuple[bytes, bytes]) -> bool:
        """At the end of a message, whatever it counts."""
        return moment == _CONTENT

    def turns(self, facts: ContentFacts) -> Sequence[Turn]:
        """What the limit is asked: each different key once, at the cost of all that have it."""
        value = self._value(facts)
        if self.value and not value:
            return ()
        keys: dict[str, set[int]] = {}
        for number, looked_at in self._looked_at(facts):
            if key := self.key(looked_at):
                keys.setdefault(key, set()).add(number)
        return [(key, value, self._cost(facts, len(recipients))) for key, recipients in keys.items()]

    def _cost(self, facts: ContentFacts, recipients: int) -> float:
        if self.by_byte:
            return float(facts.size_in_bytes)
        if not self.weighted:
            return 1.0
        return float(recipients if self._by_recipient else facts.recipient_count)

    def _looked_at(self, facts: ContentFacts) -> Iterable[tuple[int, ContentFacts]]:
        """The facts with each choice of those addresses that the key names, and the recipient's number."""
        authors = facts.authors if self._by_author else (UNKNOWN,)
        repliers = facts.repliers if self._by_replier else (UNKNOWN,)
        recipients = facts.recipients if self._by_recipient else (NOBODY,)
        if len(authors) * len(repliers) * len(recipients) > _MOST_TURNS:
            # Those in front would hide the others.
            authors, repliers = _as_one(authors), _as_one(repliers)
        choices = product(authors, repliers, enumerate(recipients))
        for author, replier, (number, recipient) in islice(choices, _MOST_TURNS):
            yield number, facts._replace(author=author, replier=replier, recipient=recipient)

    def _value(self, facts: ContentFacts) -> str:
        """The value to count among others: of several addresses all together, since any may be varied."""
        if self.value is None:
            return ""
        for named in self._named(facts):
            if named.address == MANY.address:
                # One key, but not one value: it would be a way to have as many as one likes.
                return f"{MANY.address} {named.given}"
        choices = product(facts.authors or (UNKNOWN,), facts.repliers or (UNKNOWN,))
        values = {self.value(facts._replace(author=author, replier=replier)) for author, replier in choices}
        return bounded(SEPARATOR.join(sorted(filter(None, values))))

    def _named(self, facts: ContentFacts) -> Sequence[Sender]:
        """The addresses of which the value is."""
        if self.rule.distinct in ("from", "from_org"):
            return facts.authors
        return facts.repliers if self.rule.distinct in ("reply_to", "reply_to_org") else ()


def _as_one(addresses: tuple[Sender, ...]) -> tuple[Sender, ...]:
    return addresses if len(addresses) == 1 else (MANY,) * bool(addresses)


class Limits:
    """All limits of one process: the policy daemon's, or those of the milter by what the content shows.

    `share` is how much of each this process may give out.
    """

    def __init__(
        self, rules: Sequence[LimitRule], folder: Folder, max_keys: int = 1_000_000, share: float = 1.0
    ) -> None:
        self._capacity = max_keys // max(1, len(rules))
        self.limits = [
            (ContentLimit if rule.by_content else Limit)(rule, folder, self._capacity, share)
            for rule in rules
        ]
        self.repeats = Repeats()
        self._asked = self._by_moment()

    def decide(self, facts: AnyFacts, now: float) -> Outcome:
        """Ask all limits of this question, and charge them if none refuses; `now` in seconds."""
        limits = self.asked_at(facts.state, facts.context)
        if not limits:
            return NO_OBJECTION
        identity = identity_of(facts)
        if identity in self.repeats:
            return NO_OBJECTION
        outcome = self._decide(limits, facts, now)
        if identity and outcome.refusal is None:
            self.repeats.add(identity)
        return outcome

    def asked_at(self, state: bytes, context: bytes) -> Sequence[Limit]:
        """The limits that a question takes part in, by its protocol_state and policy_context."""
        return self._asked.get((state, context), ())

    @staticmethod
    def _decide(limits: Iterable[Limit], facts: AnyFacts, now: float) -> Outcome:
        charges: list[tuple[Table, str, Any]] = []
        observed: tuple[Observed, ...] = ()
        for limit in limits:
            for key, value, cost in limit.turns(facts):
                # Where there is no share to look at, a call less.
                used, wait, mark = (limit.table if limit.share >= 1.0 else limit).ask(key, value, cost, now)
                if wait <= 0.0:
                    charges.append((limit.table, key, mark))
                elif limit.observe:
                    limit.table.keep(key)
                    observed += (Observed(limit.name, show_key(key), limit.figure(key, used)),)
                else:
                    for table, asked, _ in (*charges, (limit.table, key, None)):
                        table.keep(asked)
                    refusal = Refusal(limit, show_key(key), limit.figure(key, used), wait, limit.rate(key))
                    return Outcome(refusal, observed)
        for table, key, mark in charges:
            table.put(key, mark)
        return Outcome(None, observed) if observed else NO_OBJECTION

    def preview(self, facts: AnyFacts, now: float) -> Preview:
        """What `decide` would say, with each limit's figures; charges nothing."""
        asked = self.asked_at(facts.state, facts.context)
        if asked and identity_of(facts) in self.repeats:
            return looked([], repeated=True)
        looks: list[Look] = []
        for limit in asked:
            for key, value, cost in limit.turns(facts) or (_NO_TURN,):
                used, wait, _ = limit.ask(key, value, cost, now) if key else (0.0, 0.0, None)
                looks.append(Look(limit, key, limit.figure(key, used), wait))
        return looked(looks)

    def tick(self, now: float) -> None:
        """Forget what is over; call it every second or so."""
        for limit in self.limits:
            limit.table.tick(now)

    def sizes(self) -> list[tuple[str, int]]:
        """How many keys each limit remembers."""
        return [(limit.name, len(limit.table)) for limit in self.limits]

    def rows(self, now: float) -> Iterable[tuple[str, Iterable[Row]]]:
        """What every limit remembers, by `identity` of the limit."""
        return [(identity(limit.rule), limit.table.rows(now)) for limit in self.limits]

    def load(self, name: str, rows: Iterable[Row], now: float, elapsed: float) -> None:
        """Take over rows of the limit that has this identity; rows of a limit that is gone are dropped."""
        for limit in self.limits:
            if identity(limit.rule) == name:
                limit.table.load(rows, now, elapsed)

    def adopt(self, former: "Limits", now: float) -> None:
        """Take over what the limits of a former configuration remember, and leave those without it.

        A limit that did not change keeps its table as it is, however large; only
        one with another rate is counted over.
        """
        self.repeats = former.repeats
        unchanged = {limit.rule.name: limit for limit in former.limits}
        for limit in self.limits:
            before = unchanged.get(limit.name)
            if before is not None and (before.rule, before.share) == (limit.rule, limit.share):
                before.table.resize(self._capacity)
                limit.table = before.table
            elif before is not None and identity(before.rule) == identity(limit.rule):
                limit.table.load(before.table.rows(now), now, 0.0)
        self._asked = self._by_moment()

    def _by_moment(self) -> dict[tuple[bytes, bytes], Sequence[Limit]]:
        return {moment: tuple(limit for limit in self.limits if limit.asked_at(moment)) for moment in _UNITS}


def looked(looks: Iterable[Look], *, repeated: bool = False) -> Preview:
    """What the limits would say to a question by their figures, in their order, and the steps to it."""
    if repeated:
        note = "this very question was counted before"
        return NO_OBJECTION, [Step("limits", "", "", "pass", note=note)]
    steps: list[Step] = []
    outcome = NO_OBJECTION
    for limit, key, figure, wait in looks:
        step = Step("limits", limit.name, show_key(key), "pass", figure)
        free = f"free in {wait:.1f} s"
        if not key:
            step = step._replace(figure="", note="the question lacks this limit's key")
        elif outcome.refusal:
            step = step._replace(outcome="not reached")
        elif wait > 0.0 and limit.observe:
            outcome = Outcome(None, (*outcome.observed, Observed(limit.name, step.key, figure)))
            step = step._replace(outcome="would refuse", note=free)
        elif wait > 0.0:
            outcome = Outcome(Refusal(limit, step.key, figure, wait, limit.rate(key)), outcome.observed)
            step = step._replace(outcome="refuse", note=free)
        steps.append(step)
    return outcome, steps


def identity(rule: LimitRule) -> str:
    """What must stay the same for counters to keep their meaning when a limit's rate changes."""
    kind = f"distinct {rule.distinct}" if rule.distinct else "window" if rule.window else "rate"
    return f"{rule.name} by {','.join(rule.key)} {kind} {rule.unit}"


def show_key(key: str) -> str:
    """A key as people read it."""
    return key.replace(SEPARATOR, ", ")


def identity_of(facts: AnyFacts) -> int:
    """The same for a repeated question only; 0 where Postfix gives no instance."""
    if not facts.instance:
        return 0
    return hash((facts.instance, facts.state, facts.recipient.given))


def _reader(names: Sequence[str]) -> Callable[[Any], str]:
    """Reads a key from facts; "" where a part of it is not known."""
    readers: list[Callable[[Any], str]] = [
        CONTENT_READERS[name] if name in CONTENT_READERS else READERS[name] for name in names
    ]
    if len(readers) == 1:
        return readers[0]

    def read(facts: AnyFacts) -> str:
        parts = [read(facts) for read in readers]
        return _joined(parts) if all(parts) else ""

    return read


def _joined(parts: Sequence[str]) -> str:
    """One key of several parts, each bounded already: what many of them make is bounded here."""
    key = SEPARATOR.join(parts)
    return hashed(key) if len(parts) > 2 and len(key) > LONGEST_JOINED else key


def _paces(rule: LimitRule, own: Mapping[str, Rate | None]) -> Paces:
    overrides = {
        key: _UNLIMITED if rate is None else _pace(rule, rate, float(rate.count)) for key, rate in own.items()
    }
    return Paces(_pace(rule, rule.rate, float(rule.burst or rule.rate.count)), overrides)


def _table(rule: LimitRule, paces: Paces, capacity: int) -> Table:
    kind = DistinctTable if rule.distinct else WindowTable if rule.window else GcraTable
    return kind(paces, capacity)


def _pace(rule: LimitRule, rate: Rate, burst: float) -> Pace:
    return Pace(float(rate.count), rate.period, float(rate.count) if rule.window or rule.distinct else burst)


def _folded(names: Sequence[str], text: str, folder: Folder) -> str:
    return folded_key(names, [part.strip() for part in text.split(",")] if len(names) > 1 else [text], folder)


def folded_key(names: Sequence[str], parts: Sequence[str], folder: Folder) -> str:
    """The key that an operator means by its parts, folded as what strangers send is."""
    return _joined([folder.key(name, part) for name, part in zip(names, parts, strict=True)])
