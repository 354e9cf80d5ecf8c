"""All limits of many questions in one call of the script: one Redis, or a master that Sentinel watches."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Concatenate, ParamSpec, TypeVar

from mxweir.ratelimit.shapes import (
    CHARGE,
    PEEK,
    Peek,
    Question,
    Said,
    Shape,
    arguments_of,
    packed,
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


class Together:
    """Asks Redis by one call for all questions of a shape."""

    def __init__(self, servers: Servers, timeout: float, script: Script = SCRIPT) -> None:
        self._servers = servers
        self._timeout = timeout
        self._script = script

    def ask(self, questions: Sequence[Question], then: Callable[[Sequence[Said] | RedisError], None]) -> None:
        """Ask about questions of one shape, at most `shape.most`."""
        self.send(questions[0].shape, *packed(questions), len(questions), then)

    def send(
        self,
        shape: Shape,
        names: Sequence[bytes],
        arguments: Sequence[bytes],
        questions: int,
        then: Callable[[Sequence[Said] | RedisError], None],
        waited: float = 0.0,
    ) -> None:
        """Ask about so many questions of one shape that are packed already.

        The first has `waited` so many seconds of the timeout.
        """

        def read(reply: object) -> None:
            answer = readable(read_reply, reply, shape, questions)
            if isinstance(answer, RedisError):
                then(answer)
                return
            self._servers.offset(names[0]).learn(answer.now)
            then(RedisError("timeout", "it came too late to be done") if answer.late else answer.said)

        timeout = max(0.0, self._timeout - waited)
        not_after = self._servers.offset(names[0]).not_after(timeout)
        self._call(shape, names, arguments_of(shape, arguments, not_after, CHARGE), read, timeout)

    def peek(self, question: Question, then: Callable[[Peek | RedisError], None]) -> None:
        """Ask what is used; charges nothing."""

        def read(reply: object) -> None:
            then(readable(read_peek, reply, question.shape))

        names, arguments = packed([question])
        self._call(
            question.shape, names, arguments_of(question.shape, arguments, 0, PEEK), read, self._timeout
        )

    def _call(
        self,
        shape: Shape,
        names: Sequence[bytes],
        arguments: Sequence[bytes],
        then: Callable[[object], None],
        timeout: float,
    ) -> None:
        self._servers.eval(self._script, [*shape.begin, *names], arguments, then, timeout)
