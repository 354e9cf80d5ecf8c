import time

from mxweir.clock import system_clock
from mxweir.testing import SettableClock


def test_the_clock_starts_at_the_walls_time():
    before = time.time()
    now = system_clock()()
    assert before - 1 <= now <= time.time() + 1


def test_the_clock_never_runs_backwards():
    clock = system_clock()
    times = [clock() for _ in range(10_000)]
    assert times == sorted(times)


def test_a_jump_of_the_walls_time_is_not_seen(monkeypatch):
    clock = system_clock()
    before = clock()
    for jump in (-3600.0, 3600.0):
        real = time.time()
        monkeypatch.setattr(time, "time", lambda jumped=real + jump: jumped)
        assert 0 <= clock() - before < 60
        monkeypatch.undo()


def test_the_clock_goes_on_as_the_monotonic_one_does(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    moments = iter([50.0, 50.0, 50.25, 3650.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    clock = system_clock()
    assert [clock(), clock(), clock()] == [1_800_000_000.0, 1_800_000_000.25, 1_800_003_600.0]


def test_a_settable_clock_stands_until_it_is_moved():
    clock = SettableClock()
    start = clock()
    assert clock() == start
    clock.advance(1.5)
    assert clock() == start + 1.5
    clock.advance(-2.0)
    assert clock() == start - 0.5
