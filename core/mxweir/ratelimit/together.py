"""All limits of many questions in one call of the script: one Redis, or a master that Sentinel watches."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Concatenate, ParamSpec, TypeVar

from mxweir.clock import Clock
from mxweir.ratelimit.shapes import (
    CHARGE,
    PEEK,
    Peek,
    Question,
    Said,
    arguments_of,
    keys_of,
    read_peek,
    read_reply,
)
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers

SCRIPT = Script(files("mxweir.ratelimit").joinpath("limits.lua").read_text("utf-8"))

T = TypeVar("T")
P = ParamSpec("P")


def readable(
    read: Callable[Concatenate[object, P], T], reply: object, *args: P.args, **kwargs: P.kwargs
) -> T | RedisError:
    """What `read` makes of a reply; the error, if it is one or cannot be read."""
    if isinstance(reply, RedisError):
        return reply
    try:
        return read(reply, *args, **kwargs)
    except ValueError as error:
        return RedisError("nonsense", str(error))


class Offset:
    """How far Redis's clock is ahead of ours, at least: by the last reply."""

    __slots__ = ("_clock", "_micros")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._micros = 0

    def learn(self, now: int) -> None:
        """Redis said that it was `now` (µs) when it did what we just heard of."""
        self._micros = now - int(self._clock() * 1e6)

    def not_after(self, timeout: float) -> int:
        """Redis's time (µs) until which a call with this timeout is meant; 0 where it is not known yet.

        Half of it: the answer needs as long to come back.
        """
        return self._micros and int((self._clock() + timeout / 2) * 1e6) + self._micros


class Together:
    """Asks Redis by one call for all questions of a shape."""

    def __init__(self, servers: Servers, clock: Clock, timeout: float, script: Script = SCRIPT) -> None:
        self._servers = servers
        self._timeout = timeout
        self._script = script
        self._offset = Offset(clock)

    def ask(self, questions: Sequence[Question], then: Callable[[Sequence[Said] | RedisError], None]) -> None:
        """Ask about questions of one shape, at most `shape.most`."""
        not_after = self._offset.not_after(self._timeout)
        arguments = arguments_of(questions[0].shape, questions, not_after, CHARGE)
        self._call(questions, arguments, partial(self._read, questions, then))

    def peek(self, question: Question, then: Callable[[Peek | RedisError], None]) -> None:
        """Ask what is used; charges nothing."""

        def read(reply: object) -> None:
            then(readable(read_peek, reply, question.shape))

        self._call([question], arguments_of(question.shape, [question], 0, PEEK), read)

    def _call(
        self, questions: Sequence[Question], arguments: Sequence[bytes], then: Callable[[object], None]
    ) -> None:
        self._servers.eval(self._script, keys_of(questions), arguments, then, self._timeout)

    def _read(
        self,
        questions: Sequence[Question],
        then: Callable[[Sequence[Said] | RedisError], None],
        reply: object,
    ) -> None:
        read = readable(read_reply, reply, questions[0].shape, len(questions))
        if isinstance(read, RedisError):
            then(read)
            return
        self._offset.learn(read.now)
        then(RedisError("timeout", "it came too late to be done") if read.late else read.said)
