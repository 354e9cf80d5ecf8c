import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.breaker import Breaker, Settings, State
from mxweir_milter.pool import Gate, Lane, Pool, Turn
from mxweir_milter.testing import StubEngine


def gated(*slots, **settings):
    """A pool whose addresses have that many slots each, on a clock that stands."""
    clock = Standing()
    gates = [Gate(Breaker(Settings(**settings), clock()), number) for number in slots]
    made = Pool([Lane(StubEngine(), gate, 1, i) for i, gate in enumerate(gates, 1)], clock)
    return made, clock


class Standing:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def give_back(pool, turn, ok=None, seconds=0.1):
    """End a turn, with a word to its breaker or without."""
    breaker = turn.lane.gate.breaker
    if ok is None:
        breaker.forget(turn.permit)
    else:
        breaker.record(turn.permit, ok, seconds, pool._clock())
    pool.give_back(turn)


def taken(turns):
    return sorted(turn.lane.address for turn in turns)


def test_the_address_with_the_least_in_hand_is_next():
    pool, _ = gated(10, 10, 10)
    turns = [pool.take() for _ in range(6)]
    assert taken(turns) == [1, 1, 2, 2, 3, 3]
    give_back(pool, next(turn for turn in turns if turn.lane.address == 2))
    assert pool.take().lane.address == 2


def test_there_are_as_many_turns_as_slots():
    pool, _ = gated(1, 2)
    turns = [pool.take() for _ in range(3)]
    assert taken(turns) == [1, 2, 2]
    assert not pool.has_room()
    assert pool.take() is None


def test_addresses_that_were_tried_are_left_out():
    pool, _ = gated(5, 5)
    first = pool.take().lane
    assert pool.take([first]).lane is not first
    assert pool.take(pool.lanes) is None
    assert not pool.has_room(pool.lanes)


def test_an_address_whose_breaker_is_open_has_no_room():
    pool, clock = gated(5, 5, min_calls=1)
    turn = pool.take()
    give_back(pool, turn, ok=False)
    assert {pool.take().lane for _ in range(5)} == set(pool.lanes) - {turn.lane}
    assert pool.take() is None
    assert pool.is_open()
    clock.now += 10.0
    assert pool.take().lane is turn.lane  # a probe
    assert pool.take() is None


async def test_who_waits_gets_the_next_slot_in_turn_and_newcomers_do_not_get_before_him():
    pool, _ = gated(1)
    turn = pool.take()
    order = []

    async def want(name):
        got = await pool.wait(60)
        order.append(name)
        give_back(pool, got)

    waiting = [asyncio.create_task(want(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert pool.waiting == 3
    give_back(pool, turn)
    assert pool.take() is None
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert pool.take() is not None


async def test_a_wait_ends_when_its_time_is_over():
    pool, _ = gated(1)
    turn = pool.take()
    assert await pool.wait(0.01) is None
    assert pool.waiting == 0
    give_back(pool, turn)
    assert pool.take() is not None


async def test_when_the_breaker_opens_nobody_waits_any_longer():
    pool, _ = gated(1, min_calls=1)
    turn = pool.take()
    waiting = [asyncio.create_task(pool.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    give_back(pool, turn, ok=False)
    assert await asyncio.gather(*waiting) == [None] * 3


@pytest.mark.parametrize("given_first", [True, False])
async def test_a_slot_given_to_one_who_is_just_being_cancelled_goes_on_to_the_next(given_first):
    pool, _ = gated(1)
    turn = pool.take()
    first, second = asyncio.create_task(pool.wait(60)), asyncio.create_task(pool.wait(60))
    await asyncio.sleep(0)
    if given_first:
        give_back(pool, turn)
        first.cancel()
    else:
        first.cancel()
        give_back(pool, turn)
    got = await second
    assert got is not None
    with pytest.raises(asyncio.CancelledError):
        await first
    assert pool.lanes[0].gate.in_hand == 1
    give_back(pool, got)
    assert pool.lanes[0].gate.in_hand == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "wait", "good", "bad", "cancel", "turn"]), st.integers(0, 9))
)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), STEPS)
def test_whatever_happens_no_slot_is_lost_and_none_given_twice(slots, steps):
    asyncio.run(walk(slots, steps))


async def walk(slots, steps):
    pool, clock = gated(*slots, min_calls=3, pause=5.0)
    held: list[Turn] = []
    waiting: list[asyncio.Task[Turn | None]] = []

    async def do(what, which):
        clock.now += 1.0
        if what == "take":
            held.extend(filter(None, [pool.take()]))
        elif what == "wait":
            waiting.append(asyncio.create_task(pool.wait(60)))
        elif what in ("good", "bad") and held:
            give_back(pool, held.pop(which % len(held)), ok=what == "good")
        elif what == "cancel" and waiting:
            waiting[which % len(waiting)].cancel()
        elif what == "turn":
            await asyncio.sleep(0)

    for what, which in steps:
        await do(what, which)
        collect(held, waiting)
        gates = [lane.gate for lane in pool.lanes]
        assert all(0 <= gate.in_hand <= gate.slots for gate in gates)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    collect(held, waiting)
    for turn in held:
        give_back(pool, turn)
    assert [lane.gate.in_hand for lane in pool.lanes] == [0] * len(slots)
    assert pool.waiting == 0
    clock.now += 1000.0
    assert all(lane.gate.breaker.would_allow(clock.now) for lane in pool.lanes)
    assert all(lane.gate.breaker.state in State for lane in pool.lanes)


def collect(held, waiting):
    """Move the turns of those who have waited to those that are held."""
    for task in [task for task in waiting if task.done()]:
        waiting.remove(task)
        if not task.cancelled() and (turn := task.result()):
            held.append(turn)
