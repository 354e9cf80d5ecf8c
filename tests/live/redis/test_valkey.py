"""What holds for Redis holds for Valkey."""

import time
from collections.abc import Iterator

import pytest

from mxweir.redis.slots import slot_of
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.redis import Redis
from mxweir_ops.lab.redis_topologies import Cluster, Watched


@pytest.fixture
def valkey() -> Iterator[Redis]:
    with temporary_directory() as directory, Redis(directory, valkey=True) as server:
        yield server


def test_it_is_valkey(valkey):
    assert valkey.info("server")["server_name"] == "valkey"


async def test_scripts_are_loaded_again_and_a_restart_and_a_full_memory_are_got_over(valkey, connected):
    asker = await connected(valkey.url)
    assert await asker.eval() == 1
    async with asker.load(within=10.0) as load:
        valkey.cli("SCRIPT", "FLUSH")
        await load.well(time.monotonic())
    assert load.failed == set()
    async with asker.load() as load:
        valkey.kill()
        valkey.start()
        await load.well(time.monotonic())
        valkey.cli("CONFIG", "SET", "maxmemory", 1)
        await asker.until(lambda: "full" in load.kinds)
        valkey.cli("CONFIG", "SET", "maxmemory", 0)
        await load.well(time.monotonic())
    assert load.kinds <= {"connection", "unavailable", "timeout", "full"}


async def test_the_user_that_is_shipped_may_do_what_we_need(valkey, connected):
    asker = await connected(valkey.guarded_url)
    heard: list[bytes] = []
    times: list[int] = []
    asker.servers.subscribe("mxweir:news", heard.append, lambda: times.append(1))
    await asker.until(lambda: bool(times))
    assert await asker.ask("PUBLISH", "mxweir:news", "x") == 1
    await asker.until(lambda: heard == [b"x"])
    assert (await asker.ask("SET", "other", "1", key="other")).kind == "refused"


async def test_a_failover_is_followed(connected):
    with temporary_directory() as directory, Watched(directory, valkey=True) as watched:
        asker = await connected(watched.url)
        async with asker.load() as load:
            await load.well(time.monotonic())
            watched.master.kill()
            await asker.until(lambda: watched.sentinels[0].chosen() == watched.replica.inet, 90)
            await load.well(time.monotonic())


async def test_a_slot_that_moves_and_a_master_that_is_lost_are_followed(connected):
    with temporary_directory() as directory, Cluster(directory, replica=True, valkey=True) as cluster:
        asker = await connected(cluster.url)
        slot, key = slot_of("moving"), "moving"
        source, target = cluster.owner(slot), cluster.masters[1]
        assert source is not target
        async with asker.load(key, within=10.0) as load:
            await load.well(time.monotonic())
            cluster.move(slot, target)
            await load.well(time.monotonic())
        assert load.failed == set()
        async with asker.load("first-third", key) as load:
            assert cluster.owner(slot_of("first-third")) is cluster.nodes[0]
            cluster.nodes[0].kill()
            await asker.until(lambda: cluster.nodes[3].info("replication")["role"] == "master", 120)
            await load.well(time.monotonic())
