"""A client of one Redis: calls, scripts, channels."""

import asyncio
from typing import Any

import pytest

from mxweir.config import Redis as Settings
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import connect
from mxweir.redis.url import parse_url
from mxweir.redis.wire import MOST_CALLS
from mxweir.testing import Recorder

WRITE = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.mark.parametrize("over", ["url", "unix_url"])
async def test_calls_that_go_out_together_have_their_own_replies(redis, connected, over):
    asker = await connected(getattr(redis, over))
    echo = Script("return {KEYS[1], ARGV[1]}")
    replies = await asyncio.gather(*(asker.eval(f"key{n}", script=echo) for n in range(300)))
    assert replies == [[f"key{n}".encode(), b"1"] for n in range(300)]
    assert await asker.ask("GET", "nothing") is None
    assert await asker.ask("SET", "a", b"\xff", key="a") == b"OK"
    assert redis.cli("GET", "a") == b"\xff"


async def test_the_database_of_the_url_is_used(redis, connected):
    asker = await connected(f"{redis.url}/1")
    await asker.eval("here")
    assert redis.info("keyspace")["db1"].startswith("keys=1,expires=0,")  # newer ones say more


async def test_a_script_that_redis_forgot_is_brought_again_by_one_call_and_no_caller_notices(
    redis, connected
):
    asker = await connected(redis.url)
    assert await asker.eval() == 1
    for times in range(1, 3):
        redis.cli("SCRIPT", "FLUSH")
        replies = await asyncio.gather(*(asker.eval() for _ in range(20)))
        assert sorted(replies) == list(range(20 * times - 18, 20 * times + 2))
        assert redis.calls("eval") == 1 + times
    redis.cli("CONFIG", "RESETSTAT")
    await asker.eval()
    assert (redis.calls("eval"), redis.calls("evalsha")) == (0, 1)


async def test_after_a_restart_the_scripts_are_there_before_the_first_call(redis, connected):
    asker = await connected(redis.url)
    await asker.eval()
    redis.kill()
    redis.start()
    assert await asker.until_well() == 1
    assert redis.calls("eval") == 0


async def test_an_error_of_the_script_is_an_answer_and_says_nothing_about_the_server(redis, connected):
    asker = await connected(redis.url)
    wrong = Script("return redis.call('LPUSH', KEYS[1], 1, 2)")
    await asker.eval()
    for _ in range(30):
        error = await asker.eval(script=wrong)
        assert (type(error), error.kind) == (RedisError, "error")
        assert "WRONGTYPE" in error.detail
    assert await asker.eval() == 2
    assert asker.names() == ["Redis connected"]


async def test_a_callback_that_raises_harms_no_other_call(redis, connected):
    asker = await connected(redis.url)

    def wrong(_):
        raise ZeroDivisionError

    asker.servers.eval(WRITE, ["k"], [1], wrong, 5)
    assert await asker.eval() == 2
    assert asker.names()[1:] == ["internal error at a reply of Redis"]


async def test_whoever_waits_at_the_end_is_answered_and_later_calls_too(redis, connected):
    asker = await connected(redis.url)
    answers: list[Any] = []
    redis.freeze()
    for _ in range(3):
        asker.servers.eval(WRITE, ["k"], [1], answers.append, 5)
    asker.servers.close()
    assert [error.kind for error in answers] == ["connection"] * 3
    asker.servers.eval(WRITE, ["k"], [1], answers.append, 5)
    assert answers[3].kind == "unavailable"


async def test_more_calls_than_may_be_under_way_are_answered_at_once(redis, connected):
    asker = await connected(redis.url)
    redis.freeze()
    answers: list[Any] = []
    for _ in range(600):
        asker.servers.eval(WRITE, ["k"], [1], answers.append, 5)
    assert [error.kind for error in answers] == ["unavailable"] * (600 - MOST_CALLS)
    assert not asker.servers.available


async def test_a_channel_is_heard_and_again_after_a_restart(redis, connected):
    asker = await connected(redis.url)
    heard: list[bytes] = []
    times: list[int] = []
    asker.servers.subscribe("mxweir:news", heard.append, lambda: times.append(1))

    await asker.until(lambda: len(times) >= 1)
    redis.cli("PUBLISH", "mxweir:news", "one")
    await asker.until(lambda: heard == [b"one"])
    redis.kill()
    redis.start()
    await asker.until(lambda: len(times) >= 2)
    redis.cli("PUBLISH", "mxweir:news", "two")
    await asker.until(lambda: heard == [b"one", b"two"])


async def test_a_server_that_is_not_there_at_the_start_is_told_once_and_found_when_it_comes(redis, connected):
    redis.stop()
    asker = await connected(redis.url)
    assert (await asker.eval()).kind == "unavailable"
    redis.start()
    assert await asker.until_well() == 1
    await asker.until_told("Redis available again")
    assert asker.names() == ["Redis not available", "Redis available again"]


async def test_a_name_that_cannot_be_is_told_like_any_other_trouble(connected):
    asker = await connected(f"redis://{'a' * 70}.example")
    assert asker.names() == ["Redis not available"]
    assert asker.servers.states() == {"available": 0, "away": 1}


async def test_an_end_is_no_trouble(redis, connected):
    asker = await connected(redis.url)
    asker.servers.subscribe("mxweir:news", lambda _: None, lambda: None)
    assert await asker.eval() == 1
    asker.servers.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert asker.names() == ["Redis connected"]
    await asker.until(lambda: redis.info("clients")["connected_clients"] == "1")


async def test_nothing_is_connected_before_the_start(redis):
    servers = connect(Settings(url=parse_url(redis.url)), Recorder())
    answers: list[Any] = []
    servers.eval(WRITE, ["k"], [1], answers.append, 1)
    assert answers[0].kind == "unavailable"
    servers.close()
