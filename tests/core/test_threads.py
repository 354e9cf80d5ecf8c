import asyncio
import threading

import pytest

from mxweir.threads import in_thread


async def test_the_result_of_work_in_a_thread_comes_back():
    assert await in_thread(lambda: threading.current_thread() is not threading.main_thread())
    assert await in_thread(lambda: "done") == "done"


async def test_an_exception_of_work_in_a_thread_comes_back():
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await in_thread(fail)


async def test_the_loop_turns_while_the_work_waits():
    go_on = threading.Event()
    work = in_thread(lambda: go_on.wait(20))
    await asyncio.sleep(0)
    assert not work.done()
    go_on.set()
    assert await work


async def test_work_that_nobody_waits_for_any_more_ends_unheard():
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(20)
        ended.set()

    future = in_thread(work)
    future.cancel()
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 20)
    await asyncio.sleep(0)
    assert future.cancelled()


def test_work_that_hangs_does_not_keep_the_loop_or_the_process_from_ending():
    go_on = threading.Event()
    before = set(threading.enumerate())

    async def begin() -> None:
        in_thread(lambda: go_on.wait(60))

    asyncio.run(begin())
    hanging = set(threading.enumerate()) - before
    assert [thread.daemon for thread in hanging] == [True]
    go_on.set()
    for thread in hanging:
        thread.join(20)
