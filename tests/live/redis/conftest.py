"""Clients of private servers, and what most tests ask them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mxweir.config import Redis as Settings
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers, connect
from mxweir.redis.url import parse_url
from mxweir.testing import Recorder
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.redis import Redis

WRITE = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
"""A script that writes, as ours do."""

TIMEOUT = 0.25
MARGIN = 1.0
"""Seconds: what this machine may hold up an answer by when eight others work on it."""


class Asker:
    """A client under test: asks, and waits for the one answer."""

    def __init__(self, servers: Servers, told: Recorder) -> None:
        self.servers = servers
        self.told = told

    async def eval(self, key: str = "k", within: float = TIMEOUT, script: Script = WRITE) -> Any:
        """The one answer to a call, reply or RedisError, which has come in time."""
        return await self._answer(lambda then: self.servers.eval(script, [key], [1], then, within), within)

    async def ask(self, *command: bytes | str | int, key: str = "", within: float = TIMEOUT) -> Any:
        """The same for a plain command."""
        return await self._answer(lambda then: self.servers.ask(command, key, then, within), within)

    async def until(self, true: Callable[[], bool], seconds: float = 15.0) -> None:
        """Wait until something has become true."""
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.01)

    async def until_well(self, key: str = "k", seconds: float = 15.0) -> Any:
        """Ask until there is a reply; it."""
        async with asyncio.timeout(seconds):
            while isinstance(reply := await self.eval(key), RedisError):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.02)
        return reply

    def names(self) -> list[str]:
        """What was told, by name."""
        return [getattr(event, "what", "") for event in self.told.events]

    async def until_told(self, what: str, times: int = 1) -> None:
        """Wait until an event of this name has been told that often."""
        await self.until(lambda: self.names().count(what) >= times)

    async def _answer(self, send: Callable[[Callable[[object], None]], None], within: float) -> Any:
        answers: list[object] = []
        first = asyncio.Event()

        def then(reply: object) -> None:
            answers.append(reply)
            first.set()

        began = asyncio.get_running_loop().time()
        send(then)
        async with asyncio.timeout(within + 10):
            await first.wait()
        assert asyncio.get_running_loop().time() - began < within + MARGIN
        assert len(answers) == 1
        return answers[0]


Connect = Callable[..., Any]


@pytest.fixture
async def connected() -> AsyncIterator[Connect]:
    """Connects a client to a URL, with settings of [redis]; all are closed at the end."""
    made: list[Servers] = []

    async def to(url: str, **settings: Any) -> Asker:
        told = Recorder()
        servers = connect(Settings(url=parse_url(url), **settings), told)
        made.append(servers)
        await servers.start()
        return Asker(servers, told)

    yield to
    for servers in made:
        servers.close()
    await asyncio.sleep(0)


@pytest.fixture
def new_redis() -> Iterator[Callable[..., Redis]]:
    """Starts a Redis of the test's own, with lines of redis.conf."""
    with ExitStack() as everything:

        def start(**settings: str) -> Redis:
            directory = everything.enter_context(temporary_directory())
            lines = {name.replace("_", "-"): value for name, value in settings.items()}
            return everything.enter_context(Redis(directory, lines))

        yield start


@pytest.fixture
def redis(new_redis: Callable[..., Redis]) -> Redis:
    """A Redis of the test's own."""
    return new_redis()
