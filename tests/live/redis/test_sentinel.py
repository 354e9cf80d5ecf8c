"""A client of a master that sentinels watch."""

import time
from collections.abc import Iterator

import pytest

from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.redis_topologies import Watched


@pytest.fixture
def watched() -> Iterator[Watched]:
    with temporary_directory() as directory, Watched(directory) as servers:
        yield servers


async def test_a_failover_under_load_costs_calls_and_no_deadline_and_is_followed(watched, connected):
    asker = await connected(watched.url)
    watched.sentinels[2].kill()  # two are a majority
    async with asker.load("a", "b") as load:
        await load.well(time.monotonic())
        watched.master.kill()
        await asker.until(lambda: watched.sentinels[0].chosen() == watched.replica.inet, 90)
        await load.well(time.monotonic())
    assert load.kinds <= {"connection", "unavailable", "timeout"}
    assert watched.replica.cli("GET", "a") is not None
    told = [name for name in asker.names() if name != "Redis channel not heard"]  # of the third sentinel
    assert told[:3] == ["Redis connected", "Redis not available", "Redis available again"]


async def test_a_frozen_master_is_left_for_the_one_that_is_chosen(watched, connected):
    asker = await connected(watched.url)
    async with asker.load() as load:
        await load.well(time.monotonic())
        watched.master.freeze()
        await asker.until(lambda: watched.sentinels[0].chosen() == watched.replica.inet, 90)
        await load.well(time.monotonic())
    assert load.kinds <= {"connection", "unavailable", "timeout"}


async def test_a_failover_that_was_asked_for_is_heard_of_while_the_former_master_still_answers(
    watched, connected
):
    asker = await connected(watched.url)
    async with asker.load() as load:
        await load.well(time.monotonic())
        watched.sentinels[0].cli("SENTINEL", "FAILOVER", "lab")
        await asker.until(lambda: watched.sentinels[0].chosen() == watched.replica.inet, 90)
        await load.well(time.monotonic())
    assert watched.replica.info("clients")["connected_clients"] != "0"
    assert load.kinds <= {"connection", "unavailable", "timeout", "read-only"}


async def test_a_master_that_nobody_knows_and_sentinels_that_are_away_are_told(watched, connected):
    asker = await connected(watched.url.replace("/lab", "/other"))
    assert "knows no master 'other'" in asker.detail("Redis not available")
    for sentinel in watched.sentinels:
        sentinel.stop()
    asker = await connected(watched.url)
    assert "sentinel inet:127.0.0.1:" in asker.detail("Redis not available")
    assert (await asker.eval()).kind == "unavailable"
    watched.sentinels[1].start()
    await asker.until_well()
