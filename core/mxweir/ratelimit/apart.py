"""One limit a call, for a Cluster: the keys of one question are on several masters.

Each limit is atomic by itself. They are asked in their order, the next one only after the
one before has room and is charged; when one refuses, or does not answer, what the
others took is given back. So for a moment a question that is going to be refused
may stand in the way of another, and that is all.

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
        """Ask what is used; charges nothing."""
        _Look(self, question, then).begin()

    def call(
        self, question: Question, mode: bytes, until: float, then: Callable[[object], None], *more: bytes
    ) -> None:
        """Call the script about one limit; `until` is the time by our clock that the answer is waited for."""
        timeout = max(0.0, until - self._clock())
        not_after = self._servers.offset(question.names[0]).not_after(timeout) if mode == APART else 0
        arguments = [*arguments_of(question.shape, question.arguments, not_after, mode), *more]
        self._servers.eval(self._script, question.names, arguments, then, timeout)

    def command(self, until: float, then: Callable[[object], None], *words: bytes) -> None:
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
        self._limits = question.each()
        self._then = then
        self._until = apart.until()
        self._at = 0
        self._charged: list[tuple[Question, Asked]] = []
        self._said: list[Said] = []

    def begin(self) -> None:
        """Find out whether it is a repeated question; if not, ask the first limit."""
        if self._repeat is None:
            self._ask()
            return
        lifetime = b"%d" % (REPEATS_SECONDS * 1000)
        self._apart.command(self._until, self._known, b"SET", self._repeat, b"", b"NX", b"PX", lifetime)

    def _known(self, reply: object) -> None:
        if isinstance(reply, RedisError):
            self._then(reply)
        elif reply is None:
            self._then([])
        else:
            self._ask()

    def _ask(self) -> None:
        if self._at == len(self._limits):
            self._then(self._said)
        else:
            self._apart.call(self._limits[self._at], APART, self._until, self._heard)

    def _heard(self, reply: object) -> None:
        asked = readable(read_apart, reply)
        limit = self._limits[self._at]
        if not isinstance(asked, RedisError):
            self._apart.learn(limit, asked.now)
            if asked.late:
                asked = RedisError("timeout", "it came too late to be done")
        if isinstance(asked, RedisError):
            self._give_back()
            self._then(asked)
            return
        if asked.wait > 0.0:
            self._said.append(Said(0, self._at, asked.used, asked.wait))
            if not limit.shape.counters[0].limit.observe:
                self._give_back()
                self._then(self._said)
                return
        else:
            self._charged.append((limit, asked))
        self._at += 1
        self._ask()

    def _give_back(self) -> None:
        """Nobody waits for this: the answer is known. If it is lost, the charges run off by themselves."""
        until = self._apart.until()
        for limit, asked in self._charged:
            self._apart.call(limit, GIVE_BACK, until, _ignore, b"%d" % asked.now, b"%d" % asked.before)
        if self._repeat is not None:
            self._apart.command(until, _ignore, b"DEL", self._repeat)


class _Look:
    """One question's figures, gathered from all masters at once."""

    def __init__(self, apart: Apart, question: Question, then: Callable[[Peek | RedisError], None]) -> None:
        self._apart = apart
        self._repeat = question.repeat
        self._limits = question.each()
        self._then = then
        self._open = 1
        self._repeated = False
        self._figures = [(0, 0.0)] * len(self._limits)
        self._error: RedisError | None = None

    def begin(self) -> None:
        """Ask them all."""
        until = self._apart.until()
        if self._repeat is not None:
            self._open += 1
            self._apart.command(until, self._known, b"MGET", self._repeat)
        for at, limit in enumerate(self._limits):
            self._open += 1
            self._apart.call(limit, PEEK, until, partial(self._heard, at))
        self._settle()

    def _known(self, reply: object) -> None:
        if isinstance(reply, RedisError):
            self._error = reply
        self._repeated = reply == [b""]
        self._settle()

    def _heard(self, at: int, reply: object) -> None:
        peek = readable(read_peek, reply, self._limits[at].shape)
        if isinstance(peek, RedisError):
            self._error = peek
        else:
            (self._figures[at],) = peek.figures
        self._settle()

    def _settle(self) -> None:
        self._open -= 1
        if not self._open:
            self._then(self._error or Peek(self._repeated, self._figures))


def _ignore(_: object) -> None:
    pass
