"""Fifty hosts that lost their Redis together come back to it spread over time, all of them, and count.

When a try is due is noted where it is drawn: on a busy machine many may be made at once that were
due one after the other. By a clock that jumps, tests/core/redis/test_stampede.py counts the tries themselves.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest

from mxweir.backoff import Backoff
from mxweir.redis import master, subscription
from mxweir.redis.errors import RedisError
from mxweir_ops.lab.redis import Redis

HOSTS = 50
CONNECTIONS = 2 * HOSTS
"""Each has one to the master, and one for a channel."""


class Noted(Backoff):
    """Notes when its next try is due."""

    made: list["Noted"]

    def __init__(self, first: float, most: float) -> None:
        super().__init__(first, most)
        self.due: list[float] = []
        self.made.append(self)

    def failed(self, share: float) -> float:
        """As it is, and noted."""
        wait = super().failed(share)
        self.due.append(asyncio.get_running_loop().time() + wait)
        return wait


def crowd(moments: list[float], seconds: float) -> int:
    """How many are due within so many seconds at most."""
    moments.sort()
    return max(bisect_left(moments, first + seconds) - at for at, first in enumerate(moments))


def connections(redis: Redis) -> int:
    """How many of ours it has."""
    return str(redis.cli("CLIENT", "LIST"), "utf-8").count(" name=mxweir ")


async def test_fifty_hosts_come_back_spread_over_time_and_all_of_them_count(
    redis: Redis, connected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noted, "made", [], raising=False)
    for module in (master, subscription):
        monkeypatch.setattr(module, "Backoff", Noted)
    hosts = [await connected(redis.url) for _ in range(HOSTS)]
    heard: list[bytes] = []
    for host in hosts:
        host.servers.subscribe("news", heard.append, lambda: None)
    await hosts[0].until(lambda: connections(redis) == CONNECTIONS)
    assert len(Noted.made) == CONNECTIONS

    await asyncio.to_thread(redis.stop)
    await hosts[0].until(lambda: all(one.failures >= 5 for one in Noted.made))
    first = [one.due[0] for one in Noted.made]
    later = [moment for one in Noted.made for moment in one.due[3:]]
    await asyncio.to_thread(redis.start)

    # That all were lost in one instant is seen in the first quarter of a second, and not any more after that.
    assert crowd(first, 0.05) <= CONNECTIONS // 2
    assert crowd(later, 0.1) <= CONNECTIONS // 3
    for host in hosts:
        await host.until(lambda host=host: host.servers.available)
    await hosts[0].until(lambda: connections(redis) == CONNECTIONS)
    answers = await asyncio.gather(*(host.eval("mail") for host in hosts))
    assert not [answer for answer in answers if isinstance(answer, RedisError)]
    assert redis.cli("GET", "mail") == b"50"
    await hosts[0].until(lambda: redis.cli("PUBLISH", "news", "now") == HOSTS)
    await hosts[0].until(lambda: len(heard) >= HOSTS)
