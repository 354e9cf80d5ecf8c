"""Redis in trouble: each call has its one answer in time, and soon after the trouble all is well again."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import pytest

from mxweir.redis.script import Script
from mxweir_ops.lab.proxy import Proxy
from mxweir_ops.lab.redis import Redis, Session


class Place(NamedTuple):
    """A Redis, what stands between it and the client, and somebody who is already in."""

    redis: Redis
    proxy: Proxy
    admin: Session


@contextmanager
def stopped(place: Place) -> Iterator[None]:
    place.redis.stop()
    yield
    place.redis.start()


@contextmanager
def killed(place: Place) -> Iterator[None]:
    place.redis.kill()
    yield
    place.redis.start()


@contextmanager
def frozen(place: Place) -> Iterator[None]:
    place.redis.freeze()
    yield
    place.redis.thaw()


@contextmanager
def slow(place: Place) -> Iterator[None]:
    place.proxy.delay = 0.3
    yield
    place.proxy.delay = 0.0


@contextmanager
def full(place: Place) -> Iterator[None]:
    place.admin.ask("CONFIG", "SET", "maxmemory", 1)
    yield
    place.admin.ask("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def read_only(place: Place) -> Iterator[None]:
    place.admin.ask("REPLICAOF", "127.0.0.1", 9)
    yield
    place.admin.ask("REPLICAOF", "NO", "ONE")


@contextmanager
def talking_nonsense(place: Place) -> Iterator[None]:
    place.proxy.nonsense = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    yield
    place.proxy.nonsense = b""


@contextmanager
def forgotten(place: Place) -> Iterator[None]:
    place.proxy.forget()
    yield


@contextmanager
def crowded(place: Place) -> Iterator[None]:
    place.admin.ask("CONFIG", "SET", "maxclients", 1)
    place.admin.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield
    place.admin.ask("CONFIG", "SET", "maxclients", 1000)


@contextmanager
def busy(place: Place) -> Iterator[None]:
    place.admin.ask("CONFIG", "SET", "busy-reply-threshold", 10)
    with Session(place.redis.unix) as other:
        other.send("EVAL", "while true do end", 0)
        yield
        place.admin.ask("SCRIPT", "KILL")


Trouble = Callable[[Place], AbstractContextManager[None]]
AWAY = {"connection", "unavailable"}


@pytest.fixture
def place(redis: Redis) -> Iterator[Place]:
    with Proxy(redis.inet) as proxy, Session(redis.unix) as admin:
        yield Place(redis, proxy, admin)


@pytest.mark.parametrize(
    ("trouble", "kinds", "surely"),
    [
        (stopped, AWAY, "unavailable"),
        (killed, AWAY, "unavailable"),
        (frozen, {*AWAY, "timeout"}, "timeout"),
        (slow, {*AWAY, "timeout"}, "timeout"),
        (full, {"full", "unavailable"}, "full"),
        (read_only, {*AWAY, "read-only"}, "read-only"),
        (talking_nonsense, {*AWAY, "nonsense"}, "nonsense"),
        (forgotten, {*AWAY, "timeout"}, "timeout"),
        (crowded, AWAY, "unavailable"),
        (busy, {*AWAY, "timeout", "busy"}, "busy"),
    ],
)
async def test_in_trouble_each_call_is_answered_in_time_and_after_it_all_is_well_again(
    place, connected, trouble: Trouble, kinds, surely
):
    asker = await connected(f"redis://127.0.0.1:{place.proxy.endpoint.port}")
    async with asker.load() as load:
        await load.well(time.monotonic())
        with trouble(place):
            await asker.until(lambda: surely in load.kinds)
            await asker.until_told("Redis not available")
        await load.well(time.monotonic())
        await asker.until_told("Redis available again")
    # Where others keep the machine busy, a call may be late in any trouble, and another one told after it;
    # what is told are changes, whatever happens.
    assert load.kinds <= kinds | {"timeout", "unavailable"}
    told = asker.names()
    assert told[0] == "Redis connected"
    assert set(told[1::2]) == {"Redis not available"}
    assert set(told[2::2]) == {"Redis available again"}


async def test_a_redis_that_has_no_room_is_left_alone_but_for_a_call_now_and_then(place, connected):
    asker = await connected(place.redis.url)
    await asker.eval()
    with full(place):
        async with asker.load() as load:
            await asker.until_told("Redis not available")
            before = place.redis.calls("evalsha")
            await asker.until(lambda: len(load.answers) > 200)
            asked = place.redis.calls("evalsha") - before
    assert asked < 40


async def test_what_a_redis_without_room_still_answers_does_not_hide_that_it_cannot_count(place, connected):
    asker = await connected(place.redis.url)
    with full(place):
        for _ in range(10):
            await asker.ask("GET", "k")
            await asker.ask("GET", "k")
            await asker.eval()
        await asker.until_told("Redis not available")


async def test_what_is_read_only_from_the_start_is_told_and_not_asked(place, connected):
    with read_only(place):
        asker = await connected(place.redis.url)
        assert (await asker.eval()).kind == "unavailable"
        assert asker.detail("Redis not available").endswith("read-only: it is a replica")
        assert place.redis.calls("evalsha") == 0
    assert await asker.until_well() == 1


async def test_something_else_at_the_address_is_told_and_the_password_is_not(place, connected):
    place.proxy.nonsense = b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n"
    asker = await connected(f"redis://:hunter2@127.0.0.1:{place.proxy.endpoint.port}")
    assert "refused: it does not take our user, password or database" in asker.detail("Redis not available")
    assert "hunter2" not in repr(asker.told.events)


async def test_one_that_is_away_is_tried_now_and_then(place, connected):
    place.redis.stop()
    asker = await connected(f"redis://127.0.0.1:{place.proxy.endpoint.port}")
    began = time.monotonic()
    async with asker.load():
        await asker.until(lambda: place.proxy.accepted > 3)
        tries, seconds = place.proxy.accepted, time.monotonic() - began
    assert tries < 10 + 10 * seconds
    assert asker.names() == ["Redis not available"]


async def test_a_reply_without_end_ends_the_connection(place, connected, monkeypatch):
    monkeypatch.setattr("mxweir.redis.wire.MOST_REPLY", 100_000)
    asker = await connected(place.redis.url)
    long = Script("return string.rep('x', 200000)")
    assert (await asker.eval(script=long)).kind == "nonsense"
    assert await asker.until_well() == 1


async def test_calls_that_a_reader_leaves_unread_do_not_pile_up(place, connected):
    asker = await connected(place.redis.url)
    place.redis.freeze()
    large = "x" * 100_000
    answers: list[object] = []
    for _ in range(200):
        asker.servers.ask(("SET", "k", large), "k", answers.append, 5.0)
    assert 0 < len(answers) < 200
    assert {str(answer) for answer in answers} == {"unavailable: too many calls are under way"}
