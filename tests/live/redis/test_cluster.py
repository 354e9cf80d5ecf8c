"""A client of a Cluster of three masters."""

import asyncio
import time
from collections.abc import Iterator, Sequence

import pytest

from mxweir.config import loads
from mxweir.events import Counted
from mxweir.facts import AnyFacts, Folder
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.shared import Shared
from mxweir.redis.script import Script
from mxweir.redis.slots import slot_of
from mxweir.testing import question, whole_message
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.redis_topologies import Cluster

KEYS = [f"key{n}" for n in range(12)]

FOLDER = Folder()
BY_SENDER = """
[[limit]]
name = "sender"
key = "sender"
rate = "2/day"

[[limit]]
name = "domain"
key = "sender_domain"
rate = "200/day"
"""
BY_REPLY_TO = """
[[limit]]
name = "pair"
key = ["reply_to", "recipient"]
rate = "2/day"

[[limit]]
name = "reply-to"
key = "reply_to"
unit = "message"
rate = "1/day"
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """For tests that stop no node; one that moves a slot has keys of its own."""
    with temporary_directory() as directory, Cluster(directory) as servers:
        yield servers


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A Cluster of the test's own."""
    with temporary_directory() as directory, Cluster(directory) as servers:
        yield servers


async def test_each_key_is_asked_for_where_its_slot_is(shared, connected):
    asker = await connected(shared.url)
    assert asker.servers.clustered
    for key in KEYS:
        assert await asker.eval(key) == 1
        assert shared.owner(slot_of(key)).cli("GET", key) == b"1"
    assert sorted(asker.names()) == ["Redis connected"] * 4  # the map, and three masters
    assert not any("errorstat_MOVED" in node.info("errorstats") for node in shared.masters)


async def test_one_node_that_answers_is_enough_to_begin_with(cluster, connected):
    cluster.nodes[0].freeze()
    asker = await connected(cluster.url)
    await asker.until_well(next(key for key in KEYS if cluster.owner(slot_of(key)) is cluster.nodes[1]))


async def test_slots_that_move_under_load_are_followed_and_no_call_fails(shared, connected):
    asker = await connected(shared.url)
    keys = [f"moving{n}" for n in range(12)]
    key = keys[0]
    target = next(node for node in shared.masters if node is not shared.owner(slot_of(key)))
    async with asker.load(*keys, within=10.0) as load:
        await load.well(time.monotonic())
        await asyncio.to_thread(shared.move, slot_of(key), target, lambda: time.sleep(0.3))
        await load.well(time.monotonic())
    assert load.failed == set()
    assert int(target.cli("GET", key)) > 0
    assert target.calls("asking") > 0
    assert asker.names() == ["Redis connected"] * 4


async def test_a_call_with_two_keys_waits_until_both_have_moved(shared, connected):
    asker = await connected(shared.url)
    both = Script("return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}")
    slot = slot_of("{tag}a")
    source = shared.owner(slot)
    target = next(node for node in shared.masters if node is not source)
    source.cli("MSET", "{tag}a", 1, "{tag}b", 1)
    answers: list[object] = []
    steps = iter(["one has moved", "both have moved"])

    def while_moving() -> None:
        if next(steps) == "one has moved":
            source.cli("MIGRATE", target.inet.host, target.inet.port, "{tag}a", 0, 5000)
            loop.call_soon_threadsafe(eval_both)
            assert wait_until(lambda: "errorstat_TRYAGAIN" in source.info("errorstats"), 15)

    def eval_both() -> None:
        asker.servers.eval(both, ["{tag}a", "{tag}b"], [], answers.append, 20.0)

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(shared.move, slot, target, while_moving)
    await asker.until(lambda: bool(answers))
    assert answers == [[2, 2]]


async def test_a_master_killed_under_load_fails_its_own_keys_only_until_its_replica_takes_over(connected):
    with temporary_directory() as directory, Cluster(directory, replica=True) as cluster:
        asker = await connected(cluster.url)
        theirs = [key for key in KEYS if cluster.owner(slot_of(key)) is not cluster.nodes[0]]
        async with asker.load(*KEYS) as load, asker.load(*theirs, within=10.0) as others:
            await load.well(time.monotonic())
            cluster.nodes[0].kill()
            await others.well(time.monotonic())
            await asker.until(lambda: cluster.nodes[3].info("replication")["role"] == "master", 120)
            await load.well(time.monotonic())
        assert others.failed == set()
        cluster.nodes[0].start()  # it comes back as a replica, which nobody needs to be connected to
        await asker.until(lambda: asker.servers.states() == {"available": 3, "away": 0}, 90)
        beginner = await connected(f"redis+cluster://127.0.0.1:{cluster.nodes[0].inet.port}")
        assert await beginner.until_well(KEYS[0])
        assert load.kinds <= {"connection", "unavailable", "timeout", "down"}


async def test_a_master_that_comes_back_is_asked_again(cluster, connected):
    asker = await connected(cluster.url)
    key = next(key for key in KEYS if cluster.owner(slot_of(key)) is cluster.nodes[2])
    async with asker.load(*KEYS) as load:
        await load.well(time.monotonic())
        cluster.nodes[2].kill()
        await asker.until(lambda: "unavailable" in load.kinds)
        cluster.nodes[2].start()
        await load.well(time.monotonic())
    assert int(cluster.nodes[2].cli("GET", key)) > 0


async def decided(asker, rules: str, *facts: AnyFacts) -> Sequence[Outcome]:
    """What the limits say, by a process that remembers nothing and has all the time that it takes."""
    limits = Limits(loads(rules).limit, FOLDER)
    shared = Shared(limits, asker.servers, "mxweir", time.monotonic, asker.told, 20.0)
    answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    shared.decide(facts, answer.set_result)
    return await answer


async def test_questions_that_wait_travel_together_to_each_master(shared, connected):
    asker = await connected(shared.url)
    senders = [f"s{n}@a.example" for n in range(120)]
    facts = [question(sender=sender, instance=sender, folder=FOLDER) for sender in senders]

    def count(section: str, name: str) -> int:
        return sum(int(node.info(section).get(name, 0)) for node in shared.masters)

    def scripts() -> int:
        return sum(node.calls("evalsha") + node.calls("eval") for node in shared.masters)

    before = count("stats", "total_reads_processed"), scripts()
    assert [outcome.refusal for outcome in await decided(asker, BY_SENDER, *facts)] == [None] * 120
    reads, calls = count("stats", "total_reads_processed") - before[0], scripts() - before[1]
    assert calls >= 240  # and 120 marks, and what asks for these figures
    assert reads < calls / 3


async def test_a_message_of_hundreds_of_recipients_is_counted_in_redis_all_or_nothing(shared, connected):
    asker = await connected(shared.url)
    message = whole_message(700)
    rules = [(await decided(asker, BY_REPLY_TO, message))[0].refusal for _ in range(3)]
    # What the second limit refuses is given back to the first: it never finds a pair that is full.
    assert [rule and rule.limit.name for rule in rules] == [None, "reply-to", "reply-to"]
    assert {event.by for event in asker.told.events if isinstance(event, Counted)} == {"redis"}


async def test_channels_are_heard_whichever_node_they_are_published_at(shared, connected):
    asker = await connected(shared.url)
    heard: list[bytes] = []
    times: list[int] = []
    asker.servers.subscribe("mxweir:news", heard.append, lambda: times.append(1))
    await asker.until(lambda: bool(times))
    for number, node in enumerate(shared.masters):
        node.cli("PUBLISH", "mxweir:news", number)
    await asker.until(lambda: sorted(heard) == [b"0", b"1", b"2"])


async def test_no_node_at_the_start_is_told_and_found_when_it_comes(cluster, connected):
    cluster.stop()
    asker = await connected(cluster.url)
    assert (await asker.eval()).kind == "unavailable"
    assert asker.names() == ["Redis not available"]
    for node in cluster.nodes:
        node.start()
    await asker.until_well()
