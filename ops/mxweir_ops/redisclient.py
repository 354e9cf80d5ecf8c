"""Redis for the command line: the daemons' own client, one call after the other, an answer or one clear line.

What the command line reaches, the daemons reach too: same addresses, same login, same TLS.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mxweir.config.sections import Redis
from mxweir.events import Event, Trouble
from mxweir.redis.call import Then
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers, connect
from mxweir.service import ServiceError

T = TypeVar("T")

_TIMEOUT = 5.0
"""Seconds for a call."""


class RedisAwayError(ServiceError):
    """Redis gave no answer, in words for the operator."""

    status = 2


class Client:
    """Asks, and waits; raises RedisAwayError for whatever is no answer."""

    def __init__(self, servers: Servers, where: str, told: Sequence[Event]) -> None:
        self._servers = servers
        self._where = where
        self._told = told

    async def eval(
        self, script: Script, keys: Sequence[bytes | str], args: Sequence[bytes | str | int]
    ) -> object:
        """Run a script where its first key is."""
        return await self._answer(lambda then: self._servers.eval(script, keys, args, then, _TIMEOUT))

    async def ask(self, *command: bytes | str | int, key: bytes | str = "") -> object:
        """Give a command where a key is ("": anywhere)."""
        return await self._answer(lambda then: self._servers.ask(command, key, then, _TIMEOUT))

    async def _answer(self, send: Callable[[Then], None]) -> object:
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        send(answer.set_result)
        reply = await answer
        if isinstance(reply, RedisError):
            raise RedisAwayError(f"Redis ({self._where}) gives no answer: {self._why(reply)}")
        return reply

    def _why(self, error: RedisError) -> str:
        """What was told of the connection says more than that there is none."""
        told = [event.detail for event in self._told if isinstance(event, Trouble)]
        return told[-1] if error.kind == "unavailable" and told else str(error)


def with_redis(settings: Redis, work: Callable[[Client], Awaitable[T]]) -> T:
    """What `work` makes of Redis's answers; raises RedisAwayError, or SettingError."""

    async def run() -> T:
        told: list[Event] = []
        servers = connect(settings, told.append)
        await servers.start()
        try:
            return await work(Client(servers, str(settings.url), told))
        finally:
            servers.close()

    return asyncio.run(run())
