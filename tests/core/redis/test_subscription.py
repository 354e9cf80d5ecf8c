import asyncio

import pytest

from mxweir.endpoint import Endpoint
from mxweir.events import Trouble
from mxweir.redis import subscription
from mxweir.redis.dial import Manners
from mxweir.redis.errors import RedisError
from mxweir.redis.subscription import Subscription
from mxweir.redis.url import Login
from mxweir.testing import Recorder, SettableClock


async def test_that_a_channel_is_not_heard_is_told_once_until_it_is_heard_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscription, "_FIRST", 0.0)
    monkeypatch.setattr(subscription, "_MOST", 0.0)
    told, tries = Recorder(), 0

    async def nowhere() -> Endpoint:
        nonlocal tries
        tries += 1
        raise RedisError("connection", "refused")

    async def after(more: int) -> None:
        wanted = tries + more
        async with asyncio.timeout(20):
            while tries < wanted:  # noqa: ASYNC110 - it tries by itself
                await asyncio.sleep(0)

    manners = Manners("", Login(), 0, None, told, SettableClock())
    hearing = Subscription(manners, nowhere, "mxweir:reset", lambda _: None, lambda: None)
    hearing.start()
    await after(5)
    trouble = Trouble("Redis channel not heard", "mxweir:reset: connection: refused")
    assert told.events == [trouble]
    hearing._take([b"subscribe", b"mxweir:reset", 1])
    await after(5)
    assert told.events == [trouble, trouble]
    hearing.close()
