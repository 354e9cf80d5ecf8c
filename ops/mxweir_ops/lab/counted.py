"""Limits counted in a private Redis, asked without a loop, at times that are set by hand."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hiredis

from mxweir.config import LimitRule
from mxweir.facts import AnyFacts, Folder
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.shared import Shared
from mxweir.ratelimit.together import SCRIPT
from mxweir.redis.errors import RedisError
from mxweir.redis.offset import Offset
from mxweir.redis.replies import error_of
from mxweir.redis.script import Script
from mxweir.testing import Recorder, SettableClock
from mxweir.trail import Step
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.redis import Redis

TIME = "local time = redis.call('TIME') local now = time[1] * 1000000 + time[2]"
"""The one line that reads Redis's clock."""

CLOCK = b"clock"
"""The key that has the time instead."""

ERA = 46_000 * 86400
"""Seconds; the set times are after this one, in 2095, so that no expiry is reached while a test runs."""

FOLDER = Folder()


class Direct:
    """The face of Redis's client over one connection: the reply comes before a call returns."""

    available = True

    def __init__(self, redis: Redis, *, clustered: bool = False) -> None:
        self.clustered = clustered
        self.calls: list[Sequence[Any]] = []
        """What was sent."""
        self.ahead = Offset(time.monotonic)
        self._reader = hiredis.Reader()
        self._connection = connect(redis.unix, 10.0)

    def eval(
        self,
        script: Script,
        keys: Sequence[Any],
        args: Sequence[Any],
        then: Callable[[object], None],
        timeout: float,
    ) -> None:
        """Run a script; its reply."""
        reply = self.send("EVALSHA", script.sha, len(keys), *keys, *args)
        if isinstance(reply, RedisError) and "NOSCRIPT" in reply.detail:
            reply = self.send("EVAL", script.source, len(keys), *keys, *args)
        then(reply)

    def ask(self, command: Sequence[Any], key: Any, then: Callable[[object], None], timeout: float) -> None:
        """Give a command; its reply."""
        then(self.send(*command))

    def offset(self, key: Any) -> Offset:
        """How far its clock is ahead of that of whoever asks."""
        return self.ahead

    def send(self, *words: bytes | str | int) -> Any:
        """The reply to a command, or a RedisError."""
        self.calls.append(words)
        self._connection.sendall(hiredis.pack_command(words))  # type: ignore[arg-type] # its stub says one word
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._connection.recv(65536))
        return error_of(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def keys_without_expiry(self) -> list[bytes]:
        """What would stay for ever, but for the clock that is set by hand."""
        return [key for key in self.send("KEYS", "*") if self.send("PTTL", key) == -1 and key != CLOCK]

    def states(self) -> Mapping[str, int]:
        """One, and it is there."""
        return {"available": 1, "away": 0}

    async def start(self) -> None:
        """It is connected already."""

    def subscribe(self, channel: str, on_message: object, on_connected: object) -> None:
        """Hears nothing."""


class Counted:
    """One process's limits in Redis, with Redis's clock (µs after ERA) in the test's hand."""

    def __init__(self, servers: Direct, rules: Sequence[LimitRule], prefix: str = "mxweir") -> None:
        self.servers = servers
        self.told = Recorder()
        self.clock = SettableClock()
        self._ahead = Offset(self.clock)
        self.limits = Limits(rules, FOLDER)
        script = Script(
            SCRIPT.source.decode().replace(TIME, "local now = tonumber(redis.call('GET', 'clock'))")
        )
        self.shared = Shared(self.limits, servers, prefix, self.clock, self.told, 0.1, script)

    def at(self, micros: int) -> "Counted":
        """Set the clocks, Redis's and this process's."""
        self.clock.now = ERA + micros / 1e6
        self.servers.send("SET", "clock", micros + ERA * 1_000_000)
        return self

    def decide(self, *facts: AnyFacts) -> Sequence[Outcome]:
        """The outcomes, which are known at once."""
        answers: list[Sequence[Outcome]] = []
        self.servers.ahead = self._ahead
        self.shared.decide(facts, answers.append)
        (outcomes,) = answers
        return outcomes

    def anew(self, *facts: AnyFacts) -> Sequence[Outcome]:
        """The outcomes, as by a process that remembers nothing."""
        for refusals in self.shared.refusals.values():
            refusals.turn()
            refusals.turn()
        self.limits.repeats.young.clear()
        return self.decide(*facts)

    def preview(self, facts: AnyFacts) -> tuple[Outcome, list[Step]]:
        """What is told without charging."""
        answers: list[tuple[Outcome, list[Step]]] = []
        self.shared.preview(facts, answers.append)
        (preview,) = answers
        return preview

    def figures(self, facts: AnyFacts) -> dict[str, str]:
        """What is used of each limit."""
        return {step.rule: step.figure for step in self.preview(facts)[1]}
