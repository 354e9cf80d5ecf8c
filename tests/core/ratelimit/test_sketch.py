from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.ratelimit import sketch
from mxweir.ratelimit.sketch import PERIOD, Recent, Sketch, Summary, merged

KEYS = st.integers(0, 60).map(lambda number: f"k{min(number, 61 - number)}")
ROWS = st.lists(st.lists(KEYS, max_size=30), max_size=12)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little room that a few dozen keys make it forget."""
    monkeypatch.setattr(sketch, "ROOM", 2)
    monkeypatch.setattr(sketch, "AT_ONCE", 7)


def counted(rows: list[list[str]], size: int = 4) -> tuple[Sketch, Counter[str]]:
    """A sketch of the rows, and the truth."""
    made, truth = Sketch(size), Counter[str]()
    for row in rows:
        made.update(row)
        truth.update(row)
    return made, truth


def holds(summary: Summary, truth: Counter[str]) -> None:
    """What a summary promises."""
    for key, number in truth.items():
        if key in summary.counts:
            assert summary.counts[key] <= number <= summary.counts[key] + summary.lost
        else:
            assert number <= summary.absent
    assert summary.counts.keys() <= truth.keys()
    assert summary.events == truth.total()


@given(ROWS, st.integers(1, 8), st.integers(1, 12))
def test_a_count_is_at_most_what_was_lost_too_low_and_never_too_high(rows, size, most):
    made, truth = counted(rows, size)
    summary = made.summary(most)
    holds(summary, truth)
    assert len(summary.counts) <= most


@given(ROWS, st.integers(1, 8))
def test_what_is_lost_is_at_most_the_events_by_the_size(rows, size):
    made, truth = counted(rows, size)
    assert made.summary(size).lost <= truth.total() / (size + 1)


@given(ROWS, st.integers(1, 8))
def test_whoever_makes_more_than_one_in_so_many_events_is_found(rows, size):
    made, truth = counted(rows, size)
    found = made.summary(size * 2 + 8).counts
    assert {key for key, number in truth.items() if number > truth.total() / (size + 1)} <= found.keys()


@given(st.lists(ROWS, max_size=4), st.integers(1, 6), st.integers(1, 6))
def test_the_truth_of_all_workers_lies_between_what_is_said_of_them_together(workers, size, most):
    made = [counted(rows, size) for rows in workers]
    truth = sum((each for _, each in made), Counter[str]())
    together = merged([each.summary(most) for each, _ in made])
    said = {talker.key: talker for talker in together.talkers}
    for key, number in truth.items():
        if key in said:
            assert said[key].least <= number <= said[key].most
        else:
            assert number <= together.absent
    assert together.events == truth.total()
    order = [talker.least for talker in together.talkers]
    assert order == sorted(order, reverse=True)


def test_a_million_keys_that_come_once_take_no_more_room_and_do_not_hide_who_goes_on():
    made = Sketch(size=4)
    largest = 0
    for number in range(10_000):
        made.update([f"unique{number}", "steady", f"other{number}"])
        largest = max(largest, len(made))
    assert largest <= 4 * 2 + 7
    summary = made.summary(1)
    assert list(summary.counts) == ["steady"]
    assert summary.counts["steady"] <= 10_000 <= summary.counts["steady"] + summary.lost
    assert summary.lost <= 30_000 / 5


def test_few_keys_are_counted_exactly():
    made, _ = counted([["a", "b"], ["a"], ["a", "c"]])
    assert made.summary(2) == Summary({"a": 3, "b": 1}, lost=0, absent=1, events=5)
    assert made.summary(9) == Summary({"a": 3, "b": 1, "c": 1}, lost=0, absent=0, events=5)


def test_of_no_worker_nothing_is_known():
    assert merged([]) == ([], 0, 0)


def test_what_is_recent_is_of_the_running_period_and_the_one_before():
    recent = Recent(now=0.0)
    recent.update(["a", "a"])
    recent.tick(PERIOD - 1)
    recent.update(["b"])
    assert recent.summary(9).counts == {"a": 2, "b": 1}
    recent.tick(PERIOD)
    recent.update(["b", "c"])
    assert recent.summary(9).counts == {"a": 2, "b": 2, "c": 1}
    recent.tick(2 * PERIOD)
    assert recent.summary(9).counts == {"b": 1, "c": 1}
    recent.tick(3 * PERIOD)
    assert recent.summary(9) == Summary({}, 0, 0, 0)


@pytest.mark.parametrize("jump", [-1.5, 2.0, 100.0])
def test_after_a_jump_of_the_clock_nothing_is_recent(jump):
    recent = Recent(now=10 * PERIOD)
    recent.update(["a"])
    recent.tick((10 + jump) * PERIOD)
    assert recent.summary(9).counts == {}


def test_periods_begin_at_the_same_moment_on_all_hosts():
    recent = Recent(now=PERIOD - 1)
    recent.update(["a"])
    recent.tick(PERIOD)
    recent.tick(2 * PERIOD - 1)
    assert recent.summary(9).counts == {"a": 1}
    recent.tick(2 * PERIOD)
    assert recent.summary(9).counts == {}


@given(ROWS, ROWS, st.integers(1, 6), st.integers(1, 6))
def test_two_periods_together_keep_the_promise_of_one(before, lately, size, most):
    recent = Recent(0.0, size=size)
    truth = Counter[str]()
    for moment, rows in ((PERIOD, before), (PERIOD, lately)):
        for row in rows:
            recent.update(row)
            truth.update(row)
        recent.tick(moment)
    holds(recent.summary(most), truth)


def test_what_is_not_known_of_a_worker_widens_what_is_said_and_nothing_else_does():
    together = merged([Summary({"a": 3}, lost=1, absent=2, events=9), Summary({"b": 1}, 0, 4, 5)])
    assert together.talkers == [("a", 3, 3 + 1 + 4), ("b", 1, 1 + 0 + 2)]
    assert (together.absent, together.events) == (6, 14)
