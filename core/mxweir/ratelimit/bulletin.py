"""What processes that count in Redis tell each other there: who uses most, and which counters were reset.

Each puts its sketch under a key of its own every ten seconds, and its name on a list;
both vanish soon after it has ended. A counter that an operator resets is told on a
channel: what a process remembers of it no longer holds.
"""

import asyncio
import json
import os
import re
import secrets
import socket
from collections.abc import Callable

from mxweir.ratelimit.talkers import Talkers
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers

_EVERY = 10.0
_LIFETIME = 30_000
"""Milliseconds for which a process counts as one that runs."""

_TIMEOUT = 2.0

_ON_LIST = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIREAT', KEYS[1], now + ARGV[2])
return now
""")


class Names:
    """What these are called in Redis."""

    def __init__(self, prefix: str) -> None:
        self.processes = f"{prefix}:top"
        """A sorted set of the processes that run, by when they no longer count as such, in ms."""
        self.resets = f"{prefix}:reset"
        """The channel."""

    def report(self, process: str) -> str:
        """The key of what a process reports."""
        return f"{self.processes}:{process}"


def reset_message(limit: str, key: str) -> str:
    """What is told of a counter that was reset."""
    return json.dumps([limit, key])


class Bulletin:
    """One process's part in it; `forget` is called with a limit and a key of it that was reset."""

    def __init__(
        self, servers: Servers, prefix: str, talkers: Talkers, forget: Callable[[str, str], None]
    ) -> None:
        self._servers = servers
        self._names = Names(prefix)
        self._talkers = talkers
        self._forget = forget
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
        self.process = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        """Never that of another one, of any host, also after a restart."""

    async def run(self) -> None:
        """Take part, for ever."""
        self._servers.subscribe(self._names.resets, self._heard, _nothing)
        while True:
            self.publish()
            await asyncio.sleep(_EVERY)

    def publish(self) -> None:
        """Report once; where Redis does not answer, the next time will do."""
        key = self._names.report(self.process)
        report = ("SET", key, self._talkers.report(), "PX", _LIFETIME)
        self._servers.ask(report, key, _nothing, _TIMEOUT)
        names = (self._names.processes,)
        self._servers.eval(_ON_LIST, names, (self.process, _LIFETIME), _nothing, _TIMEOUT)

    def _heard(self, message: bytes) -> None:
        try:
            limit, key = json.loads(message)
        except (ValueError, TypeError):
            return  # somebody else's; there is nothing to do about it
        self._forget(str(limit), str(key))


def _nothing(*_: object) -> None:
    pass
