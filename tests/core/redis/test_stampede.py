"""Fifty hosts whose Redis goes away and comes back, by a clock that jumps: when each of them tries."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hiredis
import pytest

from mxweir.config import Redis as Settings
from mxweir.redis.servers import Servers, connect
from mxweir.redis.url import parse_url
from mxweir.testing import Recorder, timeless
from mxweir_ops.lab.place import temporary_directory

HOSTS = 50
CONNECTIONS = 2 * HOSTS
"""Each has one to the master, and one for a channel."""

OUTAGE = 20.0
MOST_WAIT = 2.0
"""Seconds: by then each tries again, as the documents say."""

REPLIES = {
    b"ROLE": b"*1\r\n$6\r\nmaster\r\n",
    b"TIME": b"*2\r\n$1\r\n7\r\n$1\r\n7\r\n",
    b"SUBSCRIBE": b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
}


class Door:
    """Where Redis is, or would be: it notes when somebody comes, and greets or turns them away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open = True
        self.came: list[float] = []
        self.inside: set[asyncio.Transport] = set()

    async def __aenter__(self) -> "Door":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Visit(self), str(self.path), backlog=1000)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.shut()
        await asyncio.sleep(1.0)

    def shut(self) -> None:
        """Turn everybody out, and nobody in."""
        self.open = False
        for transport in list(self.inside):
            transport.abort()


class Visit(asyncio.Protocol):
    """One connection."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._door.came.append(asyncio.get_running_loop().time())
        self._door.inside.add(self._transport)
        if not self._door.open:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._door.inside.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while command := cast(Any, self._reader.gets()):
            self._transport.write(REPLIES.get(command[0], b"+PONG\r\n"))


def crowd(moments: Sequence[float], seconds: float) -> int:
    """How many came within so many seconds at most."""
    return max(bisect_left(moments, first + seconds) - at for at, first in enumerate(moments))


async def hosts(door: Door) -> list[Servers]:
    made = [
        connect(
            Settings(url=parse_url(f"redis+unix://{door.path}")), Recorder(), asyncio.get_running_loop().time
        )
        for _ in range(HOSTS)
    ]
    for servers in made:
        servers.subscribe("c", lambda _: None, lambda: None)
        await servers.start()
    while len(door.inside) < CONNECTIONS:  # noqa: ASYNC110 - a clock that jumps waits for nothing
        await asyncio.sleep(0.1)
    return made


@timeless
async def test_fifty_hosts_try_and_come_back_spread_over_time_and_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", random.Random(1).random)
    loop = asyncio.get_running_loop()
    with temporary_directory() as directory:
        async with Door(directory / "redis") as door:
            made = await hosts(door)
            door.came.clear()
            door.shut()
            await asyncio.sleep(OUTAGE)
            away, back = list(door.came), loop.time()
            door.came.clear()
            door.open = True
            await asyncio.sleep(2 * MOST_WAIT)
            returned = list(door.came)
            assert {servers.available for servers in made} == {True}
            for servers in made:
                servers.close()
    # While it is away: a few tries for each at first, then one a second; at no time many of them at once.
    assert CONNECTIONS * OUTAGE / MOST_WAIT < len(away) < CONNECTIONS * (OUTAGE + 5)
    assert crowd(away, 0.05) <= CONNECTIONS // 2
    assert crowd([moment for moment in away if moment > away[0] + 3.0], 0.1) <= CONNECTIONS // 4
    # When it is back: each of them once, the last of them after the longest wait that there is.
    assert len(returned) == CONNECTIONS
    assert crowd(returned, 0.1) <= CONNECTIONS // 4
    assert returned[-1] - back <= MOST_WAIT
