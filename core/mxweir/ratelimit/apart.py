"""One limit a call, for a Cluster: the keys of one question are on several masters.

Each limit is atomic by itself. They are asked in their order, the next one only after the
one before has room and is charged; when one refuses, or does not answer, what the
others took is given back. So for a moment a question that is going to be refused
may stand in the way of another, and that is all.

Where a message takes part in one limit by several keys, those are asked at once: no
order is between them. And whatever is asked in one turn of the loop goes to each
master in one write, so the questions that wait walk side by side.

That a question is a repeated one is found out before, by the one command that also
remembers it.
"""

from collections.abc import Callable, Sequence
from functools import partial

from mxweir.clock import Clock
from mxweir.ratelimit.shapes import (
    APART,
    GIVE_BACK,
    PEEK,
    REPEATS_SECONDS,
    Asked,
    Peek,
    Question,
    Said,
    arguments_of,
    read_apart,
    read_peek,
)
from mxweir.ratelimit.together import readable
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers

AT_ONCE = 64
"""Keys of one question that are asked at once: a connection has room for some hundreds of calls."""

_Call = Callable[[Callable[[object], None]], None]
"""Asks something, and gives what it is handed the reply."""


class Apart:
    """Asks Redis about one question by one call a limit."""

    def __init__(self, servers: Servers, clock: Clock, timeout: float, script: Script) -> None:
        self._servers = servers
        self._clock = clock
        self._timeout = timeout
        self._script = script

    def ask(self, questions: Sequence[Question], then: Callable[[Sequence[Said] | RedisError], None]) -> None:
        """Ask about one question."""
        (question,) = questions
        _Walk(self, question, then).begin()

    def peek(self, question: Question, then: Callable[[Peek | RedisError], None]) -> None:
        """Ask what is used, all masters at once; charges nothing."""
        until, limits = self.until(), question.each()
        calls: list[_Call] = [partial(self.call, limit, PEEK, until) for limit in limits]
        if question.repeat is not None:
            calls.append(partial(self.command, until, (b"MGET", question.repeat)))
        _at_once(calls, lambda replies: then(_seen(limits, replies)))

    def call(
        self,
        question: Question,
        mode: bytes,
        until: float,
        then: Callable[[object], None],
        more: Sequence[bytes] = (),
    ) -> None:
        """Call the script about one limit; `until` is the time by our clock that the answer is waited for."""
        timeout = max(0.0, until - self._clock())
        not_after = self._servers.offset(question.names[0]).not_after(timeout) if mode == APART else 0
        arguments = [*arguments_of(question.shape, question.arguments, not_after, mode), *more]
        self._servers.eval(self._script, question.names, arguments, then, timeout)

    def command(self, until: float, words: Sequence[bytes], then: Callable[[object], None]) -> None:
        """Give a command about the key that is its second word."""
        self._servers.ask(words, words[1], then, max(0.0, until - self._clock()))

    def until(self) -> float:
        """When the time of a question that begins now is over."""
        return self._clock() + self._timeout

    def learn(self, question: Question, now: int) -> None:
        """The master that has the key has said what time it is (µs)."""
        self._servers.offset(question.names[0]).learn(now)


class _Walk:
    """One question on its way from limit to limit."""

    def __init__(
        self, apart: Apart, question: Question, then: Callable[[Sequence[Said] | RedisError], None]
    ) -> None:
        self._apart = apart
        self._repeat = question.repeat
        self._counters = question.shape.counters
        self._limits = question.each()
        self._then = then
        self._until = apart.until()
        self._at = 0
        """How many were asked and have answered."""
        self._replies: list[object] = []
        """Of those that are asked now; None where there is none yet."""
        self._missing = 0
        self._charged: list[tuple[Question, Asked]] = []
        self._said: list[Said] = []

    def begin(self) -> None:
        """Find out whether it is a repeated question; if not, ask the first limit."""
        if self._repeat is None:
            self._ask()
            return
        lifetime = b"%d" % (REPEATS_SECONDS * 1000)
        mark = (b"SET", self._repeat, b"", b"NX", b"PX", lifetime)
        self._apart.command(self._until, mark, self._known)

    def _known(self, reply: object) -> None:
        if isinstance(reply, RedisError):
            self._then(reply)
        elif reply is None:
            self._then([])
        else:
            self._ask()

    def _ask(self) -> None:
        """Ask the next limit, by all its keys or as many as are asked at once."""
        asked = self._step()
        if not asked:
            self._then(self._said)
            return
        self._replies, self._missing = [None] * len(asked), len(asked)
        for place, limit in enumerate(asked):
            self._apart.call(limit, APART, self._until, partial(self._hear, place))

    def _step(self) -> Sequence[Question]:
        counters, first = self._counters, self._at
        end, most = first, min(len(counters), first + AT_ONCE)
        while end < most and counters[end].limit is counters[first].limit:
            end += 1
        return self._limits[first:end]

    def _hear(self, place: int, reply: object) -> None:
        self._replies[place] = reply
        self._missing -= 1
        if not self._missing:
            self._weigh(self._replies)

    def _weigh(self, replies: Sequence[object]) -> None:
        """The first key that has no room, or no answer, ends it."""
        end: RedisError | list[Said] | None = None
        for at, reply in enumerate(replies, self._at):
            limit = self._limits[at]
            asked = self._read(limit, reply)
            if isinstance(asked, RedisError):
                end = asked if end is None else end
            elif asked.wait <= 0.0:
                self._charged.append((limit, asked))
            elif end is None:
                self._said.append(Said(0, at, asked.used, asked.wait))
                end = None if self._counters[at].limit.observe else self._said
        if end is None:
            self._at += len(replies)
            self._ask()
            return
        self._undo()
        self._then(end)

    def _read(self, limit: Question, reply: object) -> Asked | RedisError:
        asked = readable(read_apart, reply)
        if isinstance(asked, RedisError):
            return asked
        self._apart.learn(limit, asked.now)
        return RedisError("timeout", "it came too late to be done") if asked.late else asked

    def _undo(self) -> None:
        """Nobody waits for this: the answer is known. If it is lost, the charges run off by themselves."""
        if self._repeat is not None:
            self._apart.command(self._apart.until(), (b"DEL", self._repeat), _ignore)
        self._give_back()

    def _give_back(self, _: object = None) -> None:
        some, self._charged = self._charged[:AT_ONCE], self._charged[AT_ONCE:]
        until = self._apart.until()
        calls = [
            partial(self._apart.call, limit, GIVE_BACK, until, more=(b"%d" % asked.now, b"%d" % asked.before))
            for limit, asked in some
        ]
        _at_once(calls, self._give_back)


def _seen(limits: Sequence[Question], replies: Sequence[object]) -> Peek | RedisError:
    """What the masters said of each limit and, behind that, of the mark, if there is one."""
    figures: list[tuple[int, float]] = []
    for limit, reply in zip(limits, replies, strict=False):
        peek = readable(read_peek, reply, limit.shape)
        if isinstance(peek, RedisError):
            return peek
        figures += peek.figures
    known = replies[len(limits) :]
    return known[0] if known and isinstance(known[0], RedisError) else Peek(known == [[b""]], figures)


def _at_once(calls: Sequence[_Call], then: Callable[[Sequence[object]], None]) -> None:
    """Make these calls; `then` gets their replies, in the calls' order, once the last has come."""
    replies: list[object] = [None] * len(calls)
    missing = len(calls)

    def heard(place: int, reply: object) -> None:
        nonlocal missing
        replies[place] = reply
        missing -= 1
        if not missing:
            then(replies)

    for place, call in enumerate(calls):
        call(partial(heard, place))


def _ignore(_: object) -> None:
    pass
