"""What a script call to Redis says, and what its reply means. Pure.

Questions that take part in the same limits at the same paces are of one *shape*:
one call of `limits.lua` answers many of them, and what they share is written
once. So a call consists of

    KEYS   where the shape has repeats, which set of marks is in use; then, for each
           question, one counter for each limit, in the limits' order
    ARGV   not after (Redis's µs; 0: whenever), mode; the shape, as doubles: seconds
           that repeats are known (0: it has none), how many limits, for each limit
           kind, two figures, flags; then, for each question, the mark by which it is
           known again (where the shape has repeats), and for each limit that takes
           one its argument: the cost in bytes, the value to tell from others

and a reply is Redis's time in µs, then four numbers for each limit that refuses, or
would if it did not only observe: question, limit (both from 1), used, wait in µs.
"late" behind the time: it was later than it should have been, and nothing was done.

Every name of a key begins with the prefix: an ACL of Redis can hold us to it.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b, sha256
from struct import pack
from typing import Any, NamedTuple

from mxweir.facts import AnyFacts
from mxweir.ratelimit.arithmetic import ROUNDING
from mxweir.ratelimit.limits import Limit, Limits, identity
from mxweir.ratelimit.memory import Pace

_MOST_KEYS = 500
"""In one call: Lua's `unpack` takes some 8,000 values, and other clients of Redis want their turn."""

REPEATS_SECONDS = 120
"""For how long a charged question is known again at least; Postfix repeats one within seconds."""

CHARGE, PEEK, APART, GIVE_BACK = b"0", b"1", b"2", b"3"
"""What a call does.

    charge     asks all limits of each question, and charges them if none refuses
    peek       asks all limits of one question and changes nothing; the reply is the time, whether the
               question is a repeated one (0, 1), then used and wait for each limit
    apart      asks one limit of one question and charges it; the reply is the time, used, wait, and when the
               value was seen before (distinct; else 0)
    give back  takes the charge of such a call back; two more ARGV: its time, and that when
"""

_KINDS = {"rate": 0, "window": 1, "distinct": 2}
_OBSERVE, _ARGUMENT = 1, 2
_MOST_SHAPES = 256
_MOST_COUNTERS = 10_000
"""In all shapes that are remembered, some 2 MB: that of a message to many may have thousands."""

_MOST_QUESTIONS = 64


class Counter:
    """One limit at one pace, as the script is told of it."""

    __slots__ = ("limit", "numbers", "pace", "prefix", "takes_argument")

    def __init__(self, limit: Limit, pace: Pace, prefix: bytes) -> None:
        self.limit = limit
        self.pace = pace
        self.prefix = prefix
        """Before the key."""
        self.takes_argument = limit.weighted or limit.value is not None
        kind = "distinct" if limit.value else "window" if limit.rule.window else "rate"
        figures = (pace.rate, pace.burst) if kind == "rate" else (pace.amount, pace.period)
        flags = _OBSERVE * limit.observe + _ARGUMENT * self.takes_argument
        self.numbers = pack("<4d", _KINDS[kind], *figures, flags)

    def name(self, key: str) -> bytes:
        """The Redis key that counts for a limit's key."""
        return self.prefix + encoded(key)

    def argument(self, value: str, cost: float) -> bytes:
        """What a question brings for this limit, if it takes one."""
        return encoded(value) if self.limit.value else b"%d" % cost

    def figure(self, used: float) -> str:
        """`33/1000`."""
        return f"{math.ceil(used - ROUNDING)}/{int(self.pace.burst)}"


class Shape:
    """Limits that questions share, in their order; `seen`: what knows them again, b"" for nothing."""

    __slots__ = ("begin", "counters", "each", "numbers", "repeats")

    def __init__(self, counters: tuple[Counter, ...], seen: bytes = b"") -> None:
        self.counters = counters
        self.repeats = bool(seen)
        """Whether these questions can be told again."""
        self.begin: tuple[bytes, ...] = (seen,) if seen else ()
        """KEYS before those of the questions."""
        seconds = REPEATS_SECONDS if seen else 0
        self.numbers = pack("<2d", seconds, len(counters)) + b"".join(one.numbers for one in counters)
        """What ARGV has of it."""
        alone = len(counters) == 1 and not seen
        self.each: tuple[Shape, ...] = (self,) if alone else tuple(Shape((one,)) for one in counters)
        """Its limits one by one."""

    @property
    def most(self) -> int:
        """Questions in one call."""
        return max(1, min(_MOST_QUESTIONS, _MOST_KEYS // max(1, len(self.counters))))


class Question(NamedTuple):
    """One question on its way to Redis."""

    shape: Shape
    keys: tuple[str, ...]
    """As the limits have them, one for each counter of the shape."""
    names: tuple[bytes, ...]
    """Its part of KEYS."""
    arguments: tuple[bytes, ...]
    """Its part of ARGV; first, where the shape has repeats, its mark."""
    costs: tuple[float, ...]
    """One for each counter of the shape."""

    @property
    def repeat(self) -> bytes | None:
        """A Redis key by which it can be known when it is repeated, where there are no sets of marks."""
        return b"%b:%b" % (*self.shape.begin, self.arguments[0]) if self.shape.repeats else None

    def each(self) -> "list[Question]":
        """What it asks, limit by limit."""
        arguments = iter(self.arguments[self.shape.repeats :])
        rows = zip(self.shape.each, self.keys, self.names, self.costs, strict=True)
        return [
            Question(
                shape,
                (key,),
                (name,),
                (next(arguments),) if shape.counters[0].takes_argument else (),
                (cost,),
            )
            for shape, key, name, cost in rows
        ]


class Said(NamedTuple):
    """One limit of one question that has no room; `question` and `counter` from 0, `wait` in seconds."""

    question: int
    counter: int
    used: int
    wait: float


class Reply(NamedTuple):
    """What a call brought: Redis's time in µs, whether it was too late, and who has no room."""

    now: int
    late: bool
    said: Sequence[Said]


class Asked(NamedTuple):
    """What one limit said to one question and, if `wait` is 0, what is needed to take its charge back."""

    now: int
    late: bool
    used: int = 0
    wait: float = 0.0
    before: int = 0


class Peek(NamedTuple):
    """What is used: whether the question was counted before, then used and wait (seconds) of each counter."""

    repeated: bool
    figures: Sequence[tuple[int, float]]


class Shapes:
    """Makes questions for Redis out of facts, by the limits of one configuration."""

    def __init__(self, limits: Limits, prefix: str) -> None:
        self.prefix = prefix.encode()
        self._seen = self.prefix + b":seen"
        self._limits = limits
        self._usual = {limit: self.counter(limit, limit.paces.usual) for limit in limits.limits}
        self._shapes: dict[tuple[tuple[Counter, ...], bool], Shape] = {}
        self._counters = 0
        self._own: dict[tuple[str, str], Counter] = {}

    def counter(self, limit: Limit, pace: Pace) -> Counter:
        """A limit at a pace."""
        mark = sha256(identity(limit.rule).encode()).hexdigest()[:6]
        return Counter(limit, pace, b"%b:%b.%b:" % (self.prefix, limit.name.encode(), mark.encode()))

    def counter_of(self, limit: Limit, key: str) -> Counter | None:
        """The limit at this key's pace; None if the key is unlimited, and so not counted."""
        if key not in limit.paces.own:
            return self._usual[limit]
        pace = limit.paces.own[key]
        if pace.amount == math.inf:
            return None
        if (limit.name, key) not in self._own:
            self._own[limit.name, key] = self.counter(limit, pace)
        return self._own[limit.name, key]

    def question(self, facts: AnyFacts) -> Question | None:
        """What Redis is to be asked; None where no limit has anything to count."""
        asked: list[Counter] = []
        keys: list[str] = []
        arguments: list[bytes] = []
        costs: list[float] = []
        for limit in self._limits.asked_at(facts.state, facts.context):
            for key, value, cost in limit.turns(facts):
                if (counter := self.counter_of(limit, key)) is not None:
                    asked.append(counter)
                    keys.append(key)
                    costs.append(cost)
                    if counter.takes_argument:
                        arguments.append(counter.argument(value, cost))
        if not asked:
            return None
        shape = self.shape(tuple(asked), bool(facts.instance))
        if shape.repeats:
            arguments.insert(0, mark((facts.instance, facts.state, encoded(facts.recipient.given))))
        names = tuple(counter.name(key) for counter, key in zip(asked, keys, strict=True))
        return Question(shape, tuple(keys), names, tuple(arguments), tuple(costs))

    def shape(self, counters: tuple[Counter, ...], repeats: bool) -> Shape:
        """The shape of these counters, the same object each time."""
        found = self._shapes.get((counters, repeats))
        if found is None:
            self._counters += len(counters)
            if len(self._shapes) >= _MOST_SHAPES or self._counters > _MOST_COUNTERS:
                self._shapes.clear()
                self._counters = len(counters)
            found = self._shapes[counters, repeats] = Shape(counters, self._seen if repeats else b"")
        return found


def mark(told: tuple[bytes, bytes, bytes]) -> bytes:
    """The mark by which a repeated question is known: of its instance (not empty), state and recipient."""
    return blake2b(b"\n".join(told), digest_size=12).digest()


def encoded(text: str) -> bytes:
    """A text's bytes; also where it holds bytes that were no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def packed(questions: Sequence[Question]) -> tuple[list[bytes], list[bytes]]:
    """The questions' part of KEYS and of ARGV of one call."""
    names = [name for question in questions for name in question.names]
    return names, [argument for question in questions for argument in question.arguments]


def arguments_of(shape: Shape, arguments: Sequence[bytes], not_after: int, mode: bytes) -> list[bytes]:
    """ARGV of one call, of which `arguments` is the questions' part."""
    return [b"%d" % not_after, mode, shape.numbers, *arguments]


def read_reply(reply: object, shape: Shape, questions: int) -> Reply:
    """Read what the script said to so many questions; ValueError if it is nothing it can have said."""
    now, rest = _timed(reply)
    if rest == [b"late"]:
        return Reply(now, True, ())
    if len(rest) % 4 or not all(isinstance(number, int) for number in rest):
        raise ValueError(f"no reply of the script: {reply!r:.100}")
    said = [
        Said(question - 1, counter - 1, used, wait / 1e6)
        for question, counter, used, wait in zip(*[iter(rest)] * 4, strict=True)
    ]
    if not all(0 <= one.question < questions and 0 <= one.counter < len(shape.counters) for one in said):
        raise ValueError(f"it speaks of what was not asked: {reply!r:.100}")
    return Reply(now, False, said)


def read_peek(reply: object, shape: Shape) -> Peek:
    """Read what the script said to a question that it was to charge nothing for; ValueError as above."""
    _, rest = _timed(reply)
    if len(rest) != 1 + 2 * len(shape.counters) or not all(isinstance(number, int) for number in rest):
        raise ValueError(f"no reply of the script: {reply!r:.100}")
    pairs = zip(rest[1::2], rest[2::2], strict=True)
    return Peek(bool(rest[0]), [(used, wait / 1e6) for used, wait in pairs])


def read_apart(reply: object) -> Asked:
    """Read what the script said about one limit that is asked apart; ValueError as above."""
    now, rest = _timed(reply)
    if rest == [b"late"]:
        return Asked(now, True)
    if len(rest) != 3 or not all(isinstance(number, int) for number in rest):
        raise ValueError(f"no reply of the script: {reply!r:.100}")
    used, wait, before = rest
    return Asked(now, False, used, wait / 1e6, before)


def _timed(reply: object) -> tuple[int, list[Any]]:
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], int):
        raise ValueError(f"no reply of the script: {reply!r:.100}")
    return reply[0], reply[1:]
