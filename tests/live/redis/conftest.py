"""Clients of private servers, and what most tests ask them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from mxweir.config import Redis as Settings
from mxweir.events import Notice, Trouble
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
"""Seconds, for calls that may be lost in a trouble."""

PATIENT = 10.0
"""Seconds, for calls that have to be answered, however busy this machine is."""

MARGIN = 20.0
"""Seconds: what this machine may hold up an answer by when eight others work on it."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the daemons run on: it looks at timers and sockets in another order than Python's."""
    return {"uvloop": uvloop.new_event_loop}


class Asker:
    """A client under test: asks, and waits for the one answer."""

    def __init__(self, servers: Servers, told: Recorder) -> None:
        self.servers = servers
        self.told = told

    async def eval(self, key: str = "k", within: float = PATIENT, script: Script = WRITE) -> Any:
        """The one answer to a call, reply or RedisError, which has come in time."""
        return await self._answer(lambda then: self.servers.eval(script, [key], [1], then, within), within)

    async def ask(self, *command: bytes | str | int, key: str = "", within: float = PATIENT) -> Any:
        """The same for a plain command."""
        return await self._answer(lambda then: self.servers.ask(command, key, then, within), within)

    async def until(self, true: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something has become true."""
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.01)

    async def until_well(self, key: str = "k", seconds: float = 60.0) -> Any:
        """Ask until there is a reply; it."""
        async with asyncio.timeout(seconds):
            while isinstance(reply := await self.eval(key), RedisError):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.02)
        return reply

    def names(self) -> list[str]:
        """What was told, by name."""
        return [event.what for event in self.told.events if isinstance(event, Trouble | Notice)]

    def detail(self, what: str) -> str:
        """The detail of the first trouble of this name."""
        return next(str(e.detail) for e in self.told.events if isinstance(e, Trouble) and e.what == what)

    async def until_told(self, what: str, times: int = 1) -> None:
        """Wait until an event of this name has been told that often."""
        await self.until(lambda: self.names().count(what) >= times)

    def load(self, *keys: str, within: float = TIMEOUT) -> "Load":
        """Load on these keys."""
        return Load(self.servers, list(keys) or ["k"], within)

    async def _answer(self, send: Callable[[Callable[[object], None]], None], within: float) -> Any:
        answers: list[object] = []
        first = asyncio.Event()

        def then(reply: object) -> None:
            answers.append(reply)
            first.set()

        began = asyncio.get_running_loop().time()
        send(then)
        async with asyncio.timeout(within + 60):
            await first.wait()
        assert asyncio.get_running_loop().time() - began < within + MARGIN
        assert len(answers) == 1
        return answers[0]


class Load:
    """Calls every few milliseconds, each on the next of some keys: `async with` begins and ends it.

    At its end each call has had exactly one answer, and had it in time.
    """

    def __init__(self, servers: Servers, keys: list[str], within: float) -> None:
        self._servers = servers
        self._keys = keys
        self._within = within
        self._late: list[str] = []
        self.answers: list[int] = []
        """How many each call has had."""
        self.good: dict[str, float] = {}
        """When a key last had a reply."""
        self.failed: set[str] = set()
        """Kinds of errors, each with its detail."""
        self.kinds: set[str] = set()

    async def __aenter__(self) -> "Load":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        async with asyncio.timeout(self._within + MARGIN):
            while not all(self.answers):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert set(self.answers) == {1}
        assert self._late == []

    async def well(self, since: float, seconds: float = 60.0) -> None:
        """Wait until every key has had a reply to a call that was made after that time."""
        async with asyncio.timeout(seconds):
            while not all(self.good.get(key, 0.0) > since for key in self._keys):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _run(self) -> None:
        while True:
            for key in self._keys:
                self._send(key)
                await asyncio.sleep(0.005)

    def _send(self, key: str) -> None:
        number, began = len(self.answers), time.monotonic()
        self.answers.append(0)

        def then(reply: object) -> None:
            self.answers[number] += 1
            took = time.monotonic() - began
            if took > self._within + MARGIN:
                self._late.append(f"{took:.3f} s: {reply!r}")
            if isinstance(reply, RedisError):
                self.kinds.add(reply.kind)
                self.failed.add(str(reply))
            else:
                self.good[key] = began

        self._servers.eval(WRITE, [key], [1], then, self._within)


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
        asker = Asker(servers, told)
        # It waits two seconds at most, and a busy machine may take longer until it knows.
        await asker.until(lambda: bool(asker.names()))
        return asker

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
