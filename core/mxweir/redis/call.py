"""One question to Redis, from its asking to its one answer."""

from collections.abc import Callable

from mxweir.breaker import Permit
from mxweir.redis.script import Script

Then = Callable[[object], None]
"""Gets Redis's reply (RESP2: int, bytes, None, or a list of them), or a RedisError; must not raise."""

Words = tuple[bytes | str | int, ...]
"""A command and its arguments."""

_NO_PERMIT = Permit(-1)
"""Of a call that says nothing about the server: no breaker has such a round."""


class Call:
    """A command under way; `deadline` and `sent` in seconds on the client's clock.

    A slotted class and no dataclass: there is one for each turn of the loop.
    """

    __slots__ = ("asking", "deadline", "hops", "permit", "script", "sent", "then", "words")

    def __init__(self, words: Words, then: Then, sent: float, timeout: float, script: Script | None = None):
        self.words = words
        self.then: Then | None = then
        """None once it has had its answer; its reply may still come."""
        self.sent = sent
        self.deadline = sent + timeout
        self.script = script
        """What EVALSHA runs, for when Redis does not have it."""
        self.asking = False
        """Whether it goes to a node that its slot is being moved to."""
        self.permit = _NO_PERMIT
        self.hops = 0
        """How often it was sent on to another node of a Cluster."""

    def answer(self, reply: object) -> None:
        """Give it its reply or its RedisError, unless it has had one."""
        then, self.then = self.then, None
        if then is not None:
            then(reply)
