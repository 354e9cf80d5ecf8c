"""Limits and the client that the daemons have, while Redis is not what it should be."""

import asyncio

import pytest

from mxweir.clock import system_clock
from mxweir.config import loads
from mxweir.events import Counted
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shared import Shared
from mxweir.ratelimit.together import SCRIPT
from mxweir.testing import Recorder, question
from mxweir_ops.lab.counted import FOLDER

RULES = """\
[[limit]]
name = "sender"
key = "sender"
rate = "3/day"

[[limit]]
name = "fanout"
key = "recipient"
rate = "9/day"
distinct = "sender"
"""


class Process:
    """A daemon's limits on the loop of a test."""

    def __init__(self, asker) -> None:
        self.told = Recorder()
        self.asker = asker
        limits = Limits(loads(RULES).limit, FOLDER)
        self.shared = Shared(limits, asker.servers, "mxweir", system_clock(), self.told, 0.8)

    async def refuses(self, **facts) -> bool:
        """Whether it refuses."""
        answer = asyncio.get_running_loop().create_future()
        self.shared.decide([question(**facts)], answer.set_result)
        (outcome,) = await answer
        return outcome.refusal is not None

    async def counts_in_redis(self) -> None:
        """Ask by other keys until Redis has answered: then its clock is known, too."""
        for number in range(100):
            await self.asker.until_well()
            await self.refuses(sender=f"s{number}@x.example", recipient=f"r{number}@b.example")
            if self.decided_by[-1] == "redis":
                return
        raise AssertionError(self.told.events)

    async def figures(self, **facts) -> list[str]:
        """What Redis has as used."""
        for _ in range(100):
            answer = asyncio.get_running_loop().create_future()
            self.shared.preview(question(**facts), answer.set_result)
            _, steps = await answer
            if steps[0].rule:
                return [step.figure for step in steps]
            await self.asker.until_well()
        raise AssertionError(self.told.events)

    @property
    def decided_by(self) -> list[str]:
        """Who decided, question by question."""
        return [event.by for event in self.told.events if isinstance(event, Counted)]


@pytest.fixture
async def process(redis, connected):
    """A daemon's limits, connected to a Redis of the test's own that has answered."""
    process = Process(await connected(redis.unix_url))
    await process.counts_in_redis()
    return process


async def test_a_call_that_a_frozen_redis_finds_when_it_goes_on_charges_nothing(redis, process):
    before, asked = await process.figures(), redis.calls("time")
    redis.freeze()
    assert not await process.refuses(instance="1")
    assert process.decided_by[-1] == "process"
    redis.thaw()
    await process.asker.until(lambda: redis.calls("time") > asked)
    assert await process.figures() == before


async def test_nor_does_the_very_first_call_of_a_connection(redis, connected):
    redis.cli("SCRIPT", "LOAD", SCRIPT.source)
    process = Process(await connected(redis.unix_url))
    redis.freeze()
    assert not await process.refuses(instance="1")
    assert process.decided_by == ["process"]
    redis.thaw()
    await process.asker.until(lambda: redis.calls("evalsha") == 1)
    assert redis.cli("DBSIZE") == 0


async def test_scripts_and_counters_that_a_restart_lost_are_nothing_to_worry_about(redis, process):
    await process.refuses(instance="0")
    redis.restart()
    await process.counts_in_redis()
    assert await process.figures() == ["0/3", "0/9"]
    redis.cli("SCRIPT", "FLUSH")
    before = redis.calls("time")
    await process.counts_in_redis()
    assert redis.calls("time") > before
