"""The operators' list in a real Redis: several hosts that follow it, whatever becomes of Redis meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import pytest

from mxweir.clock import system_clock
from mxweir.config import Redis as Settings
from mxweir.redis.servers import Servers, connect
from mxweir.redis.url import parse_url
from mxweir.testing import Recorder
from mxweir_ops.lab.process import LabError
from mxweir_ops.lab.redis import Redis
from mxweir_policyd.accesslist import record as module
from mxweir_policyd.accesslist import remote
from mxweir_policyd.accesslist.book import Book
from mxweir_policyd.accesslist.follow import Follower
from mxweir_policyd.accesslist.record import Record

NAMES = remote.Names("mxweir")
NOW = system_clock()
SOON = 60.0
"""Seconds in which a host has heard, on a busy machine."""


def word(value: str, action: str = "block", expires: float = inf) -> Record:
    return Record("sender_org", value, action, "no more", expires, "root@mx1")


def say(redis: Redis, *records: Record) -> list[Any]:
    """Say something as the command line does; what the script replies to each."""
    source = remote.CHANGE.source
    return [redis.cli("EVAL", source, 3, *NAMES.keys, *remote.change(NAMES, each)) for each in records]


class Host:
    """What one host knows, and how it follows."""

    def __init__(self, url: str) -> None:
        self.told = Recorder()
        self.servers: Servers = connect(Settings(url=parse_url(url)), self.told)
        self.book = Book()
        self.heard: list[Record] = []
        self.follower = Follower(
            self.servers,
            NAMES,
            self.book,
            system_clock(),
            self.told,
            self.heard.extend,
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.servers.start()
        self._task = asyncio.create_task(self.follower.run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.servers.close()

    def has(self, *values: str) -> bool:
        """Whether it blocks exactly these."""
        return {record.value for record in self.book.records() if record.action} == set(values)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not true():  # noqa: ASYNC110 - what is waited for happens elsewhere
                await asyncio.sleep(0.01)


async def all_have(hosts: Sequence[Host], *values: str) -> None:
    for host in hosts:
        await host.until(partial(host.has, *values))


def follows(host: Host) -> bool:
    """Whether it has heard of Redis."""
    return host.follower.heard is not None


@pytest.fixture
async def hosts(redis: Redis) -> AsyncIterator[list[Host]]:
    """Two that follow."""
    made = [Host(redis.guarded_url), Host(redis.guarded_url)]
    for host in made:
        await host.start()
        await host.until(partial(follows, host))
    yield made
    for host in made:
        host.stop()
    await asyncio.sleep(0)


async def test_a_word_is_known_to_all_hosts_and_so_is_its_withdrawal(redis: Redis, hosts: list[Host]) -> None:
    say(redis, word("a.example"), word("b.example", "allow"))
    await all_have(hosts, "a.example", "b.example")
    for host in hosts:
        found = host.book.get("sender_org b.example")
        assert found is not None
        assert (found.action, found.reason, found.by, found.made) == (
            "allow",
            "no more",
            "root@mx1",
            found.version,
        )
    [[version, before]] = say(redis, word("a.example", ""))
    assert int(version) > 0
    assert module.parse(before.decode()).action == "block"
    await all_have(hosts, "b.example")


async def test_the_lag_is_measured_by_the_clock_of_redis_alone(redis: Redis, hosts: list[Host]) -> None:
    hosts[1].follower._clock = lambda: 0.0  # a host whose own clock is wrong by decades
    say(redis, word("a.example"))
    await all_have(hosts, "a.example")
    assert all(0.0 < host.follower.lag < SOON for host in hosts)


async def test_what_was_said_before_is_no_lag_of_a_host_that_comes_later(
    redis: Redis, hosts: list[Host]
) -> None:
    say(redis, word("a.example"))
    late = Host(redis.guarded_url)
    await late.start()
    await all_have([late], "a.example")
    assert late.follower.lag == 0.0
    late.stop()


async def test_a_host_hears_by_asking_where_no_message_reaches_it(redis: Redis, hosts: list[Host]) -> None:
    quiet = remote.change(NAMES, word("a.example"))
    quiet[0] = "elsewhere"
    redis.cli("EVAL", remote.CHANGE.source, 3, *NAMES.keys, *quiet)
    await all_have(hosts, "a.example")


async def test_withdrawing_what_is_not_there_is_told_and_changes_nothing(redis: Redis) -> None:
    assert say(redis, word("a.example", "")) == [[b"nothing"]]
    say(redis, word("a.example"), word("a.example", ""))
    assert say(redis, word("a.example", "")) == [[b"nothing"]]
    assert redis.cli("HLEN", NAMES.records) == 3  # history, version, the withdrawal


async def test_a_full_list_takes_no_new_value_but_replaces_and_withdraws(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST", 2)
    replies = say(redis, *(word(f"{name}.example") for name in "abc"))
    assert [reply[0] for reply in replies[2:]] == [b"full"]
    replies = say(redis, word("a.example", "allow"), word("b.example", ""))
    assert all(int(reply[0]) > 0 for reply in replies)


async def test_what_is_over_leaves_redis_and_its_hosts(redis: Redis, hosts: list[Host]) -> None:
    say(redis, word("a.example", expires=NOW() + 7200), word("b.example", expires=NOW() + 3600))
    await all_have(hosts, "a.example", "b.example")
    redis.cli("ZADD", NAMES.keys[2], 1, "sender_org b.example")  # nobody can set the clock of Redis
    say(redis, word("c.example"))
    await all_have(hosts, "a.example", "b.example", "c.example")
    for host in hosts:
        assert host.book.expire(NOW() + 3600) == 1
        assert host.has("a.example", "c.example")
    assert redis.cli("HGET", NAMES.records, "sender_org b.example") is None
    assert redis.cli("ZCARD", NAMES.keys[1]) == 2


async def test_thousands_of_words_are_read_page_by_page(redis: Redis) -> None:
    values = [f"a{number}.example" for number in range(3 * remote.PAGE + 7)]
    history = "1"
    words = [word(value)._replace(made=number + 1) for number, value in enumerate(values)]
    for start in range(0, len(words), remote.PAGE):
        argv = remote.restore(NAMES, history if start else "", 1, words[start : start + remote.PAGE])
        history = redis.cli("EVAL", remote.RESTORE.source, 3, *NAMES.keys, *argv).decode()
    host = Host(redis.guarded_url)
    await host.start()
    await all_have([host], *values)
    say(redis, word("a7.example", ""))
    await all_have([host], *(value for value in values if value != "a7.example"))
    host.stop()


async def test_a_redis_that_was_emptied_is_given_the_list_back(redis: Redis, hosts: list[Host]) -> None:
    say(redis, word("a.example"), word("b.example", "allow"), word("c.example"))
    say(redis, word("c.example", ""))
    await all_have(hosts, "a.example", "b.example")
    redis.restart()
    assert redis.cli("EXISTS", NAMES.records) in (0, 1)  # a host may be quicker than we
    newcomer = Host(redis.guarded_url)
    await newcomer.start()
    await all_have([*hosts, newcomer], "a.example", "b.example")
    say(redis, word("d.example"))
    await all_have([*hosts, newcomer], "a.example", "b.example", "d.example")
    for host in hosts:  # what they knew before is no news
        heard = [record.value for record in host.heard if record.action]
        assert [heard.count(f"{name}.example") for name in "abd"] == [1, 1, 1]
    newcomer.stop()


async def test_a_word_said_to_an_emptied_redis_before_any_host_saw_it_joins_the_list(
    redis: Redis, hosts: list[Host]
) -> None:
    say(redis, word("a.example"), word("b.example"))
    await all_have(hosts, "a.example", "b.example")
    for host in hosts:
        host.stop()
    redis.restart()
    say(redis, word("b.example", ""), word("c.example"), word("a.example", "allow"))
    again = [Host(redis.guarded_url) for _ in hosts]
    for before, host in zip(hosts, again, strict=True):
        host.book = host.follower._book = before.book
        await host.start()
    await all_have(again, "a.example", "b.example", "c.example")
    for host in again:
        found = host.book.get("sender_org a.example")
        assert found is not None
        assert found.action == "allow"
        host.stop()


async def test_a_word_that_a_failover_lost_is_given_back(redis: Redis, hosts: list[Host]) -> None:
    say(redis, word("a.example"))
    [[version, _]] = say(redis, word("b.example"))
    say(redis, word("c.example"))
    await all_have(hosts, "a.example", "b.example", "c.example")
    lose = (
        "redis.call('HDEL', KEYS[1], ARGV[1]) redis.call('ZREM', KEYS[2], ARGV[1])"
        " redis.call('HSET', KEYS[1], 'version', ARGV[2])"
    )
    redis.cli("EVAL", lose, 3, *NAMES.keys, "sender_org c.example", version)
    await hosts[0].until(lambda: redis.cli("HEXISTS", NAMES.records, "sender_org c.example") == 1)
    newcomer = Host(redis.url)
    await newcomer.start()
    await all_have([*hosts, newcomer], "a.example", "b.example", "c.example")
    say(redis, word("d.example"))
    await all_have([*hosts, newcomer], "a.example", "b.example", "c.example", "d.example")
    newcomer.stop()


async def test_a_host_that_was_away_for_long_does_not_bring_back_what_was_withdrawn(
    redis: Redis, hosts: list[Host]
) -> None:
    """Even if Redis was emptied meanwhile, and nobody remembers the withdrawal."""
    away, stayed = hosts
    say(redis, word("a.example"), word("b.example"))
    await all_have(hosts, "a.example", "b.example")
    away.stop()
    say(redis, word("a.example", ""))
    await all_have([stayed], "b.example")
    stayed.book.retain(["sender_org b.example"])  # as after a day
    redis.restart()
    await stayed.until(lambda: redis.cli("HEXISTS", NAMES.records, "sender_org b.example") == 1)
    back = Host(redis.guarded_url)
    back.book = back.follower._book = away.book
    await back.start()
    await all_have([back, stayed], "b.example")
    assert redis.cli("HEXISTS", NAMES.records, "sender_org a.example") == 0
    back.stop()


async def test_a_host_that_missed_withdrawals_which_redis_forgot_reads_all_of_it(
    redis: Redis, hosts: list[Host]
) -> None:
    away, stayed = hosts
    say(redis, word("a.example"), word("b.example"))
    await all_have(hosts, "a.example", "b.example")
    away.stop()
    say(redis, word("a.example", ""))
    redis.cli("ZADD", NAMES.keys[2], 1, "sender_org a.example")  # as if a day had passed
    say(redis, word("c.example"))
    assert redis.cli("HEXISTS", NAMES.records, "sender_org a.example") == 0
    back = Host(redis.guarded_url)
    back.book = back.follower._book = away.book
    await back.start()
    await all_have([back, stayed], "b.example", "c.example")
    back.stop()


async def test_while_redis_is_away_a_host_goes_by_what_it_knows_and_says_so_once(
    redis: Redis, hosts: list[Host]
) -> None:
    say(redis, word("a.example"), word("b.example", expires=NOW() + 3600))
    await all_have(hosts, "a.example", "b.example")
    redis.kill()
    host = hosts[0]
    troubles = [getattr(event, "what", "") for event in host.told.events]
    await host.until(
        lambda: "access list not followed" in [getattr(event, "what", "") for event in host.told.events]
    )
    assert troubles.count("access list not followed") == 0
    assert host.has("a.example", "b.example")
    assert host.book.expire(NOW() + 3600) == 1
    redis.start()
    say(redis, word("c.example"))
    await host.until(
        lambda: "access list followed again" in [getattr(e, "what", "") for e in host.told.events]
    )
    await host.until(lambda: host.book.get("sender_org c.example") is not None)
    assert [getattr(e, "what", "") for e in host.told.events].count("access list not followed") == 1


async def test_nonsense_in_redis_is_told_and_passed_over(redis: Redis, hosts: list[Host]) -> None:
    say(redis, word("a.example"))
    redis.cli("HSET", NAMES.records, "rubbish", "550 no")
    version = int(redis.cli("HGET", NAMES.records, "version")) + 1
    redis.cli("ZADD", NAMES.keys[1], version, "rubbish")
    redis.cli("HSET", NAMES.records, "version", version)
    host = hosts[0]
    await host.until(
        lambda: "access entries not understood" in [getattr(e, "what", "") for e in host.told.events]
    )
    say(redis, word("b.example"))
    await all_have(hosts, "a.example", "b.example")


async def test_a_list_of_another_type_in_redis_is_a_trouble_and_no_fault(
    redis: Redis, hosts: list[Host]
) -> None:
    say(redis, word("a.example"))
    await all_have(hosts, "a.example")
    redis.cli("DEL", *NAMES.keys)
    redis.cli("SET", NAMES.records, "mine")
    with pytest.raises(LabError, match="WRONGTYPE"):
        say(redis, word("b.example"))
    host = hosts[0]
    await host.until(
        lambda: "access list not followed" in [getattr(event, "what", "") for event in host.told.events]
    )
    assert host.has("a.example")
