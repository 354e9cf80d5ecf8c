import threading
import time

import pytest

from mxweir.deadline import Deadline
from mxweir.testing import Recorder
from mxweir_milter.scanloop import ScanLoop
from mxweir_milter.scanner import Scanner
from mxweir_milter.testing import StubEngine, message, scanner, score
from mxweir_milter.verdict import Failed, Reason

SLACK = 2.0
"""Seconds that a loaded machine may need; what would hang, hangs for an hour."""


@pytest.fixture
def serving():
    """Gives a function that starts a loop with an engine; all are stopped at the end."""
    loops = []

    def serve(engine):
        loop = ScanLoop(scanner(engine))
        loop.start()
        loops.append(loop)
        return loop

    yield serve
    for loop in loops:
        loop.stop()


def test_a_thread_gets_its_result(serving):
    assert serving(StubEngine(score(3.0))).scan(message(), Deadline.after(5)) == score(3.0)


def test_many_threads_get_theirs_at_the_same_time(serving):
    loop = serving(StubEngine(score(3.0), seconds=0.2))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(loop.scan(message(), Deadline.after(5))))
        for _ in range(50)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [score(3.0)] * 50
    assert time.monotonic() - began < 0.2 * 50


def test_past_the_deadline_the_thread_goes_on_and_the_scan_is_cancelled(serving):
    engine = StubEngine(seconds=3600)
    loop = serving(engine)
    began = time.monotonic()
    result = loop.scan(message(), Deadline.after(0.1))
    assert time.monotonic() - began < 0.1 + SLACK
    assert isinstance(result, Failed)
    assert result.reason is Reason.DEADLINE
    assert engine.cancelled == 1
    assert loop.in_flight == 0


def test_a_stuck_loop_does_not_hold_up_a_thread(serving):
    stuck = threading.Event()

    class Blocking(StubEngine):
        async def scan(self, message):
            stuck.wait(20)
            return await super().scan(message)

    loop = serving(Blocking())
    began = time.monotonic()
    result = loop.scan(message(), Deadline.after(0.1))
    waited = time.monotonic() - began
    stuck.set()
    assert result == Failed(Reason.DEADLINE, detail="the scan loop did not answer")
    assert waited < 0.1 + SLACK


def test_a_scan_that_knows_no_deadline_is_cancelled_from_outside(serving):
    class Stubborn(Scanner):
        async def scan(self, message, deadline):
            return await StubEngine.scan(engine, message)

    engine = StubEngine(seconds=3600)
    loop = serving(engine)
    loop.scanner = Stubborn([], Recorder())
    assert isinstance(loop.scan(message(), Deadline.after(0.1)), Failed)
    loop.stop()
    assert engine.cancelled == 1
    assert loop.in_flight == 0


def test_a_stopped_loop_gives_a_failure_and_no_exception(serving):
    loop = serving(StubEngine())
    loop.stop()
    result = loop.scan(message(), Deadline.after(1))
    assert isinstance(result, Failed)
    assert result.reason is Reason.INTERNAL


def test_stopping_cancels_what_is_under_way(serving):
    engine = StubEngine(seconds=3600)
    loop = serving(engine)
    results = []
    thread = threading.Thread(target=lambda: results.append(loop.scan(message(), Deadline.after(60))))
    thread.start()
    while not engine.asked:
        time.sleep(0.001)
    loop.stop()
    thread.join(SLACK)
    assert engine.cancelled == 1
    assert isinstance(results[0], Failed)


def test_a_new_scanner_is_used_from_the_next_message_on(serving):
    loop = serving(StubEngine(score(3.0)))
    loop.scanner = scanner(StubEngine(score(4.0)))
    assert loop.scan(message(), Deadline.after(5)) == score(4.0)


def test_a_turning_loop_is_not_silent(serving):
    assert serving(StubEngine()).silent_for() == 0.0
