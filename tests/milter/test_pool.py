import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.breaker import Breaker, Settings, State
from mxweir_milter.pool import Gate, Lane, Pool, Turn
from mxweir_milter.testing import StubEngine


def gated(*slots, clock=None, **settings):
    """A pool whose addresses have that many slots each, on a clock that stands."""
    clock = clock or Standing()
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


async def test_who_waits_at_two_pools_gets_the_first_slot_of_either_and_no_other():
    (one, _), (other, _) = gated(1), gated(1)
    held = [one.take(), other.take()]
    waiting = asyncio.create_task(one.wait(60, other))
    await asyncio.sleep(0)
    give_back(other, held[1])
    give_back(one, held[0])
    got = await waiting
    assert got is not None
    assert got.pool is other
    assert (one.waiting, other.waiting) == (0, 0)
    assert (one.lanes[0].gate.in_hand, other.lanes[0].gate.in_hand) == (0, 1)


async def test_who_waits_at_two_pools_is_sent_away_when_the_breakers_of_both_have_opened():
    (one, _), (other, _) = gated(1, min_calls=1), gated(1, min_calls=1)
    held = [one.take(), other.take()]
    waiting = asyncio.create_task(one.wait(60, other))
    await asyncio.sleep(0)
    give_back(one, held[0], ok=False)
    await asyncio.sleep(0)
    assert not waiting.done()
    give_back(other, held[1], ok=False)
    assert await waiting is None


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
    one, clock = gated(*slots, min_calls=3, pause=5.0)
    two, _ = gated(*slots, clock=clock, min_calls=3, pause=5.0)
    held: list[Turn] = []
    waiting: list[asyncio.Task[Turn | None]] = []

    async def do(what, which):
        clock.now += 1.0
        pool, other = (one, two) if which % 2 else (two, one)
        if what == "take":
            held.extend(filter(None, [pool.take()]))
        elif what == "wait":
            waiting.append(asyncio.create_task(pool.wait(60, *[other][which % 3 :])))
        elif what in ("good", "bad") and held:
            turn = held.pop(which % len(held))
            give_back(turn.pool, turn, ok=what == "good")
        elif what == "cancel" and waiting:
            waiting[which % len(waiting)].cancel()
        elif what == "turn":
            await asyncio.sleep(0)

    for what, which in steps:
        await do(what, which)
        collect(held, waiting)
        gates = [lane.gate for lane in one.lanes + two.lanes]
        assert all(0 <= gate.in_hand <= gate.slots for gate in gates)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    collect(held, waiting)
    for turn in held:
        give_back(turn.pool, turn)
    is_as_before(one, clock.now + 1000.0)
    is_as_before(two, clock.now + 1000.0)


def is_as_before(pool, now):
    """Nobody is there any more, and every address lets a message through."""
    assert [lane.gate.in_hand for lane in pool.lanes] == [0] * len(pool.lanes)
    assert pool.waiting == 0
    assert all(lane.gate.breaker.would_allow(now) for lane in pool.lanes)
    assert all(lane.gate.breaker.state in State for lane in pool.lanes)


def collect(held, waiting):
    """Move the turns of those who have waited to those that are held."""
    for task in [task for task in waiting if task.done()]:
        waiting.remove(task)
        if not task.cancelled() and (turn := task.result()):
            held.append(turn)
