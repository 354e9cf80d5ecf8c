import asyncio

import pytest

from mxweir.breaker import Settings, State
from mxweir.config import loads
from mxweir.deadline import Deadline
from mxweir.events import Asked, Switched, Trouble
from mxweir.service import SettingError
from mxweir.testing import Recorder, timeless
from mxweir_milter.engines.error import EngineError
from mxweir_milter.scanner import SLOTS, Scanner, build
from mxweir_milter.testing import StubEngine, message, pool, scanner, score
from mxweir_milter.verdict import Failed, Reason

SILENT = 3600.0
DOWN = ConnectionRefusedError(111, "Connection refused")


def after(seconds):
    """A deadline on the loop's clock."""
    return Deadline.after(seconds, asyncio.get_running_loop().time)


async def scan(*engines, seconds=5.0):
    recorder = Recorder()
    made = scanner(*engines, observe=recorder)
    return await made.scan(message(), after(seconds)), recorder.events


def troubles(events):
    return [event.what for event in events if isinstance(event, Trouble)]


async def test_the_first_engine_that_answers_decides():
    first, second = StubEngine(score(1.0)), StubEngine(score(9.0))
    assert (await scan(first, second))[0] == score(1.0)
    assert not second.asked


async def test_an_engine_that_fails_is_the_next_ones_turn():
    first = StubEngine(EngineError(Reason.BAD_ANSWER, "no score"))
    result, events = await scan(first, StubEngine(score(9.0)))
    assert result == score(9.0)
    assert troubles(events) == ["scan failed: bad answer"]


@timeless
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
        (StubEngine(DOWN), Reason.UNREACHABLE),
        (StubEngine(RuntimeError("a fault of ours")), Reason.INTERNAL),
    ],
)
@timeless
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


async def test_a_result_tells_the_time_that_its_engine_took():
    result, events = await scan(StubEngine(seconds=0.02))
    asked = [event for event in events if isinstance(event, Asked)]
    assert result.seconds == asked[0].seconds >= 0.02
    assert asked[0][:4] == ("spamd", "1", "1", "ok")


async def test_a_message_that_the_engine_is_set_to_skip_goes_to_no_other_and_is_no_failure():
    skips = StubEngine(EngineError(Reason.ENGINE_SKIPPED, "set to skip"))
    other = StubEngine()
    recorder = Recorder()
    made = scanner(skips, other, observe=recorder)
    results = [await made.scan(message(), after(5)) for _ in range(10)]
    assert set(results) == {Failed(Reason.ENGINE_SKIPPED, "spamd", "set to skip")}
    assert not other.asked
    assert made.lanes[0].gate.breaker.state is State.CLOSED
    assert troubles(recorder.events) == []


# Several addresses


async def test_an_address_that_fails_is_the_next_ones_turn_before_the_next_engines():
    second, other = StubEngine(score(2.0)), StubEngine(score(9.0))
    made = Scanner([pool(StubEngine(DOWN), second), pool(other, position=2)], Recorder())
    results = [await made.scan(message(), after(5)) for _ in range(4)]
    assert results == [score(2.0)] * 4
    assert not other.asked


async def test_equal_addresses_share_the_work():
    engines = StubEngine(), StubEngine(), StubEngine()
    made = Scanner([pool(*engines)], Recorder())
    for _ in range(30):
        await made.scan(message(), after(5))
    assert [len(engine.asked) for engine in engines] == [10, 10, 10]


@timeless
async def test_a_silent_address_leaves_time_for_the_others_and_for_the_next_engine():
    silent = [StubEngine(seconds=SILENT) for _ in range(2)]
    made = Scanner([pool(*silent), pool(StubEngine(score(9.0)), position=2)], Recorder())
    assert await made.scan(message(), after(0.3)) == score(9.0)
    assert [engine.cancelled for engine in silent] == [1, 1]


# Breakers


async def opened(*engines):
    """A scanner whose engines' breakers have all opened, and what it observed."""
    recorder = Recorder()
    made = scanner(*engines, observe=recorder)
    for _ in range(Settings().min_calls):
        await made.scan(message(), after(5))
    assert {lane.gate.breaker.state for lane in made.lanes} == {State.OPEN}
    return made, recorder


async def test_while_a_breaker_is_open_its_engine_is_not_asked():
    engine = StubEngine(DOWN)
    made, _ = await opened(engine)
    asked = len(engine.asked)
    assert await made.scan(message(), after(5)) == Failed(Reason.BREAKER_OPEN)
    assert len(engine.asked) == asked


@timeless
async def test_behind_an_open_breaker_the_next_engine_has_all_the_time():
    made, _ = await opened(StubEngine(DOWN), StubEngine(DOWN))
    slow = StubEngine(score(9.0), seconds=0.9)
    made.pools = (made.pools[0], pool(slow, position=2))
    assert await made.scan(message(), after(3600)) == score(9.0)


@timeless
async def test_an_engine_before_an_open_breaker_has_all_the_time():
    made, _ = await opened(StubEngine(DOWN))
    given = []

    class Asked(StubEngine):
        async def scan(self, message):
            given.append(asyncio.timeout)
            await asyncio.sleep(0.7)
            return score(1.0)

    made.pools = (pool(Asked()), *made.pools)
    assert await made.scan(message(), after(1.0)) == score(1.0)


async def test_an_opening_and_a_closing_are_told_once():
    engine = StubEngine(DOWN)
    made, recorder = await opened(engine)
    gate = made.lanes[0].gate
    for _ in range(3):  # three pauses, at whose end a probe fails
        gate.breaker._until = 0.0
        await made.scan(message(), after(5))
    engine.answer = score(1.0)
    gate.breaker._until = 0.0
    for _ in range(5):
        await made.scan(message(), after(5))
    told = [(*event[:3], event.state, event.why) for event in recorder.events if isinstance(event, Switched)]
    assert told == [
        ("spamd", "1", "1", "open", "5 of 5 calls in 30 s failed"),
        ("spamd", "1", "1", "closed", "3 calls in a row were good"),
    ]


@timeless
async def test_half_open_one_message_at_a_time_is_the_probe_and_the_others_pass_by():
    engine = StubEngine(DOWN)
    made, _ = await opened(engine)
    engine.answer, engine.seconds = score(1.0), 0.05
    made.lanes[0].gate.breaker._until = 0.0
    results = await asyncio.gather(*(made.scan(message(), after(5)) for _ in range(10)))
    assert results.count(score(1.0)) == 1
    assert results.count(Failed(Reason.BREAKER_OPEN)) == 9


@timeless
async def test_a_deadline_that_left_no_fair_chance_does_not_count_against_an_engine():
    """Of 100 ms the two before it use up 96, and 4 are no chance."""
    silent = [StubEngine(seconds=SILENT) for _ in range(4)]
    made = Scanner([pool(*silent)], Recorder())
    for _ in range(8):
        await made.scan(message(), after(0.1))
    lasts = [len(lane.gate.breaker._slices) for lane in made.lanes]
    calls = sum(piece.calls for lane in made.lanes for piece in lane.gate.breaker._slices)
    assert calls < sum(len(engine.asked) for engine in silent), lasts


async def test_a_fault_of_our_own_does_not_count_against_an_engine():
    made = scanner(StubEngine(RuntimeError("ours")))
    for _ in range(20):
        await made.scan(message(), after(5))
    assert made.lanes[0].gate.breaker.state is State.CLOSED


async def test_a_cancelled_scan_gives_back_its_slot_and_does_not_count():
    engine = StubEngine(seconds=SILENT)
    made = scanner(engine)
    for _ in range(20):
        task = asyncio.create_task(made.scan(message(), after(5)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    gate = made.lanes[0].gate
    assert (engine.cancelled, gate.in_hand, gate.breaker.state) == (20, 0, State.CLOSED)
    assert not gate.breaker._slices


# Slots


async def test_no_more_scans_are_under_way_than_there_are_slots():
    engine = StubEngine(seconds=0.02)
    made = scanner(engine, slots=3)
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, len(engine.asked) - answered)
            await asyncio.sleep(0)

    answered = 0
    watching = asyncio.create_task(watch())

    async def one():
        nonlocal answered
        result = await made.scan(message(), after(5))
        answered += 1
        return result

    results = await asyncio.gather(*(one() for _ in range(12)))
    watching.cancel()
    assert results == [score(1.0)] * 12
    assert most <= 3 + 3  # those under way, and those done but not yet counted by the watcher


@timeless
async def test_a_message_that_finds_no_slot_in_time_passes_unscanned():
    made = Scanner([pool(StubEngine(seconds=SILENT), slots=1)], recorder := Recorder(), 0.02)
    first = asyncio.create_task(made.scan(message(), after(5)))
    await asyncio.sleep(0)
    assert await made.scan(message(), after(5)) == Failed(Reason.ENGINE_BUSY, "spamd")
    assert troubles(recorder.events) == ["no slot"]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_message_goes_to_an_idle_engine_rather_than_wait_for_a_busy_one():
    busy, idle = StubEngine(seconds=SILENT), StubEngine(score(9.0))
    made = Scanner([pool(busy, slots=1), pool(idle, position=2)], Recorder(), SILENT)
    first = asyncio.create_task(made.scan(message(), after(3600)))
    await asyncio.sleep(0)
    assert await made.scan(message(), after(3600)) == score(9.0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@timeless
async def test_messages_that_wait_are_served_by_whichever_engine_has_a_slot_first():
    silent, quick = StubEngine(seconds=SILENT), StubEngine(score(9.0), seconds=0.01)
    made = Scanner([pool(silent, slots=1), pool(quick, slots=1, position=2)], Recorder(), 60.0)
    scans = [asyncio.create_task(made.scan(message(), after(SILENT))) for _ in range(4)]
    assert await asyncio.gather(*scans[1:]) == [score(9.0)] * 3
    scans[0].cancel()


@timeless
async def test_an_engine_that_fails_after_a_wait_for_its_slot_is_the_next_ones_turn():
    failing = StubEngine(DOWN, seconds=0.01)
    slow = StubEngine(score(9.0), seconds=0.05)
    made = Scanner([pool(failing, slots=1), pool(slow, slots=1, position=2)], Recorder(), SILENT)
    scans = [asyncio.create_task(made.scan(message(), after(SILENT))) for _ in range(3)]
    assert await asyncio.gather(*scans) == [score(9.0)] * 3


async def test_a_breaker_that_opens_while_a_message_waits_is_the_reason_that_it_gets():
    first = pool(StubEngine(DOWN, seconds=0.01), slots=1)
    first.lanes[0].gate.breaker.settings = Settings(min_calls=1)
    made = Scanner([first], recorder := Recorder(), SILENT)
    scans = [asyncio.create_task(made.scan(message(), after(SILENT))) for _ in range(2)]
    failed, sent_away = await asyncio.gather(*scans)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.UNREACHABLE
    assert sent_away == Failed(Reason.BREAKER_OPEN)
    assert "no slot" not in troubles(recorder.events)


@timeless
async def test_waiting_for_a_slot_ends_with_the_deadline():
    made = Scanner([pool(StubEngine(seconds=SILENT), slots=1)], Recorder(), SILENT)
    first = asyncio.create_task(made.scan(message(), after(3600)))
    await asyncio.sleep(0)
    result = await made.scan(message(), after(0.05))
    assert result == Failed(Reason.ENGINE_BUSY, "spamd")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


# From the configuration

SPAMD = '[[milter.engine]]\ntype = "spamd"\naddress = ["unix:/a", "unix:/b"]\n'
RSPAMD = '[[milter.engine]]\ntype = "rspamd"\naddress = "inet:127.0.0.1:11333"\n'


def milter(text):
    return loads(text).milter


def test_it_is_built_from_the_configuration():
    made = build(milter(SPAMD + "max_scans = 7\n" + RSPAMD + '[milter]\ndeadline = "6s"\n'), Recorder())
    shown = [(str(lane.engine), lane.position, lane.address, lane.gate.slots) for lane in made.lanes]
    assert shown == [
        ("spamd at unix:/a", 1, 1, 7),
        ("spamd at unix:/b", 1, 2, 7),
        ("rspamd at inet:127.0.0.1:11333", 2, 1, SLOTS["rspamd"]),
    ]
    assert {lane.gate.breaker.settings for lane in made.lanes} == {Settings(slow_after=3.0)}


def test_a_reload_keeps_the_gates_of_engines_that_stay_and_gives_them_the_new_settings():
    former = build(milter(SPAMD), Recorder())
    made = build(
        milter(RSPAMD + SPAMD + 'max_scans = 2\n[milter.breaker]\npause = "1s"\n'), Recorder(), former
    )
    assert [lane.gate for lane in made.lanes][1:] == [lane.gate for lane in former.lanes]
    assert made.lanes[0].gate not in {lane.gate for lane in former.lanes}
    assert [(lane.gate.slots, lane.gate.breaker.settings.pause) for lane in made.lanes] == [
        (SLOTS["rspamd"], 1.0),
        (2, 1.0),
        (2, 1.0),
    ]
    assert made.names is former.names


def test_certificates_that_cannot_be_used_are_one_sentence_and_change_nothing(tmp_path):
    former = build(milter(RSPAMD), Recorder())
    (tmp_path / "ca.pem").write_text("no certificate")
    for ca in ("ca.pem", "absent.pem"):
        with pytest.raises(SettingError, match=rf"milter\.engine\[1\]\.ca: .*{ca} cannot be used: "):
            build(milter(f'{RSPAMD}max_scans = 1\ntls = true\nca = "{tmp_path / ca}"\n'), Recorder(), former)
    assert former.lanes[0].gate.slots == SLOTS["rspamd"]
