import asyncio

import pytest

from mxweir.deadline import Deadline
from mxweir.events import Trouble
from mxweir.testing import Recorder
from mxweir_milter.engines.error import EngineError
from mxweir_milter.scanner import Scanner
from mxweir_milter.testing import StubEngine, message, score
from mxweir_milter.verdict import Failed, Reason

SILENT = 3600.0


async def scan(*engines, seconds=5.0):
    recorder = Recorder()
    return await Scanner(engines, recorder).scan(message(), Deadline.after(seconds)), recorder.events


async def test_the_first_engine_that_answers_decides():
    first, second = StubEngine(score(1.0)), StubEngine(score(9.0))
    assert (await scan(first, second))[0] == score(1.0)
    assert not second.asked


async def test_an_engine_that_fails_is_the_next_ones_turn():
    first = StubEngine(EngineError(Reason.BAD_ANSWER, "no score"))
    result, events = await scan(first, StubEngine(score(9.0)))
    assert result == score(9.0)
    assert [event.what for event in events if isinstance(event, Trouble)] == ["scan failed: bad answer"]


async def test_a_silent_engine_leaves_time_for_the_next_one():
    silent = StubEngine(seconds=SILENT)
    result, _ = await scan(silent, StubEngine(score(9.0)), seconds=0.1)
    assert result == score(9.0)
    assert silent.cancelled == 1


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (StubEngine(seconds=SILENT), Reason.DEADLINE),
        (StubEngine(EngineError(Reason.BROKE_OFF, "closed")), Reason.BROKE_OFF),
        (StubEngine(ConnectionRefusedError(111, "Connection refused")), Reason.UNREACHABLE),
        (StubEngine(RuntimeError("a fault of ours")), Reason.INTERNAL),
    ],
)
async def test_when_all_fail_the_last_failure_is_the_result(engine, reason):
    result, _ = await scan(engine, seconds=0.05)
    assert isinstance(result, Failed)
    assert (result.reason, result.engine) == (reason, "spamd")


async def test_without_an_engine_there_is_no_result():
    assert (await scan())[0] == Failed(Reason.NO_ENGINE)


async def test_a_cancelled_scan_cancels_its_engine():
    engine = StubEngine(seconds=SILENT)
    task = asyncio.create_task(scan(engine))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled == 1
