import asyncio
import threading
import time

import pytest

from mxweir.deadline import Deadline
from mxweir_milter.fronts.bridge import Bridge
from mxweir_milter.testing import StubEngine, message, scanner, score
from mxweir_milter.verdict import Failed, Reason

SLACK = 20.0
"""Seconds that a loaded machine may need; what would hang, hangs for an hour."""


class Loop:
    """A loop that turns in a thread of its own, as the daemon's does in the main thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._over.wait())

    def stop(self):
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._over.set)
            self._thread.join(SLACK)

    def bridge(self, engine):
        return Bridge(scanner(engine).scan, self.loop)


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.stop()


def test_a_thread_gets_its_result(loop):
    assert loop.bridge(StubEngine(score(3.0))).scan(message(), Deadline.after(60)) == score(3.0)


def test_many_threads_get_theirs_at_the_same_time(loop):
    bridge = loop.bridge(StubEngine(score(3.0), seconds=0.5))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(bridge.scan(message(), Deadline.after(60))))
        for _ in range(50)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [score(3.0)] * 50
    assert time.monotonic() - began < 0.5 * 50


def test_past_the_deadline_the_thread_goes_on_and_the_scan_is_cancelled(loop):
    engine = StubEngine(seconds=3600)
    began = time.monotonic()
    result = loop.bridge(engine).scan(message(), Deadline.after(0.1))
    assert time.monotonic() - began < 0.1 + SLACK
    assert isinstance(result, Failed)
    assert result.reason is Reason.DEADLINE
    loop.stop()  # a busy machine's loop may hear of it after the thread has gone on
    assert engine.cancelled == 1


def test_a_stuck_loop_does_not_hold_up_a_thread(loop):
    stuck = threading.Event()

    class Blocking(StubEngine):
        async def scan(self, message):
            stuck.wait(20)
            return await super().scan(message)

    began = time.monotonic()
    result = loop.bridge(Blocking()).scan(message(), Deadline.after(0.1))
    waited = time.monotonic() - began
    stuck.set()
    assert result == Failed(Reason.DEADLINE, detail="the loop did not answer")
    assert waited < 0.1 + SLACK


def test_a_scan_that_knows_no_deadline_is_cancelled_from_outside(loop):
    engine = StubEngine(seconds=3600)
    bridge = Bridge(lambda message, _: engine.scan(message), loop.loop)
    assert isinstance(bridge.scan(message(), Deadline.after(0.1)), Failed)
    loop.stop()
    assert engine.cancelled == 1


def test_a_stopped_loop_gives_a_failure_and_no_exception(loop):
    bridge = loop.bridge(StubEngine())
    loop.stop()
    result = bridge.scan(message(), Deadline.after(1))
    assert isinstance(result, Failed)
    assert result.reason is Reason.INTERNAL


def test_stopping_cancels_what_is_under_way(loop):
    engine = StubEngine(seconds=3600)
    bridge = loop.bridge(engine)
    results = []
    thread = threading.Thread(target=lambda: results.append(bridge.scan(message(), Deadline.after(60))))
    thread.start()
    while not engine.asked:
        time.sleep(0.001)
    loop.stop()
    thread.join(SLACK)
    assert engine.cancelled == 1
    assert isinstance(results[0], Failed)
