import asyncio
from functools import partial

import pytest

from mxweir.testing import JumpingLoop
from mxweir_milter.alarms import Alarms

SLOT = 0.01


def run(test):
    """Time passes when there is nothing else to do."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(test)


def rung(*seconds, take_back=()):
    """When alarms that are set for these times go off, in their order; those in `take_back` do not."""

    async def wait():
        loop, alarms, told, alarm = asyncio.get_running_loop(), Alarms(), [], {}

        def tell(each):
            told.append((each, loop.time()))

        for each in seconds:
            alarm[each] = alarms.after(each, partial(tell, each))
        for each in take_back:
            alarm[each].cancel()
        await asyncio.sleep(100)
        return told

    return run(wait())


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.1, 7.95, 60.0])
def test_an_alarm_goes_off_in_time_and_at_most_a_slot_late(seconds):
    ((_, at),) = rung(seconds)
    assert seconds <= at <= seconds + SLOT + 1e-6


def test_alarms_go_off_in_the_order_of_their_times():
    assert [each for each, _ in rung(3.0, 1.0, 2.0, 1.5)] == [1.0, 1.5, 2.0, 3.0]


def test_an_alarm_that_is_taken_back_does_not_go_off():
    assert [each for each, _ in rung(1.0, 1.001, 2.0, take_back=[1.0, 2.0])] == [1.001]


def test_an_alarm_may_set_another_while_later_ones_wait():
    async def wait():
        alarms, told = Alarms(), []
        alarms.after(1, lambda: alarms.after(9, lambda: told.append("the new one")))
        alarms.after(5, lambda: told.append("the one that waited"))
        await asyncio.sleep(100)
        return told

    assert run(wait()) == ["the one that waited", "the new one"]


def test_an_alarm_may_take_back_one_of_the_same_moment():
    async def wait():
        alarms, told = Alarms(), []

        def take_back():
            other.cancel()

        alarms.after(1, take_back)
        other = alarms.after(1, lambda: told.append("taken back"))
        alarms.after(1, lambda: told.append("left"))
        await asyncio.sleep(2)
        return told

    assert run(wait()) == ["left"]


def test_a_fault_of_one_alarm_keeps_no_other_from_going_off():
    async def wait():
        loop, alarms, told = asyncio.get_running_loop(), Alarms(), []
        loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        alarms.after(1, lambda: 1 / 0)
        alarms.after(1, lambda: told.append("the same moment"))
        alarms.after(2, lambda: told.append("later"))
        await asyncio.sleep(3)
        return told

    assert run(wait()) == ["ZeroDivisionError('division by zero')", "the same moment", "later"]


def test_a_limit_ends_what_takes_longer():
    async def wait():
        with pytest.raises(TimeoutError), Alarms().limit(1.0):
            await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run(wait()) == pytest.approx(1.0, abs=2 * SLOT)


def test_a_limit_leaves_alone_what_is_done_by_then():
    async def wait():
        alarms = Alarms()
        with alarms.limit(1.0):
            await asyncio.sleep(0.5)
        await asyncio.sleep(10)
        return "undisturbed"

    assert run(wait()) == "undisturbed"


def test_who_is_cancelled_within_a_limit_stays_cancelled():
    async def wait():
        async def work():
            with Alarms().limit(1.0):
                await asyncio.sleep(3600)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(wait())


def test_who_is_cancelled_in_the_moment_in_which_the_limit_is_reached_is_cancelled():
    async def wait():
        alarms = Alarms()

        async def work():
            with alarms.limit(1.0):
                await asyncio.sleep(3600)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        alarms.after(1.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(wait())
