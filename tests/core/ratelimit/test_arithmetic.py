import tomllib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.ratelimit.arithmetic import (
    ROUNDING,
    SLICES,
    Seen,
    Slices,
    at_most_full,
    distinct,
    gcra,
    window,
)

CASES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "arithmetic.toml").read_text())["case"]
STARTS = [0.0, 1_800_000_000.0, 1_800_000_000.0 + 86400 * 250]


class Gcra:
    """A counter of one key, as a table keeps it."""

    def __init__(self, count: float, period: float, burst: float) -> None:
        self.rate, self.burst, self.tat = count / period, burst, 0.0

    def step(self, now: float, cost: float) -> tuple[float, float]:
        self.tat = at_most_full(self.tat, now * self.rate, self.burst)
        used, wait, mark = gcra(self.tat, now * self.rate, cost, self.burst, self.rate)
        self.tat = self.tat if wait else mark
        return used, wait


class Window:
    def __init__(self, count: float, period: float, _: float = 0) -> None:
        self.amount, self.period, self.slices = count, period, Slices()

    def step(self, now: float, cost: float) -> tuple[float, float]:
        used, wait, mark = window(self.slices, now, cost, self.amount, self.period)
        if not wait:
            self.slices.add(*mark)
        return used, wait


class Distinct:
    def __init__(self, count: float, period: float, _: float = 0) -> None:
        self.amount, self.period, self.seen = count, period, Seen()

    def step(self, now: float, value: str) -> tuple[float, float]:
        used, wait, mark = distinct(self.seen, value, now, self.amount, self.period)
        if not wait:
            self.seen.see(*mark)
        return used, wait


KINDS: dict[str, Any] = {"gcra": Gcra, "window": Window, "distinct": Distinct}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_arithmetic_holds_to_its_table(case, start):
    counter = KINDS[case["kind"]](*case["rate"], case.get("burst", 0))
    for number, (time, what, used, wait) in enumerate(case["steps"], 1):
        said = counter.step(start + time, what)
        assert said == pytest.approx((used, wait), abs=1e-3), f"step {number}"
        assert bool(said[1]) == bool(wait), f"step {number}"


def test_each_kind_has_its_cases():
    assert {case["kind"] for case in CASES} == set(KINDS)


RATES = st.tuples(st.integers(1, 10_000), st.sampled_from([1, 7, 60, 600, 3600, 86400, 604800]))
NOWS = st.floats(1_700_000_000, 2_500_000_000)


@given(RATES, st.integers(1, 2000), NOWS)
def test_a_burst_is_exact_at_any_rate_and_any_time(rate, burst, now):
    counter = Gcra(rate[0], rate[1], burst)
    passed = 0
    while not counter.step(now, 1.0)[1]:
        passed += 1
    assert passed == burst


@pytest.mark.parametrize("before", range(1, 400, 21))
def test_a_burst_is_exact_even_where_the_doubles_lose_a_bit(before):
    now = (2.0**33 - before * 1.01) / (5 / 7)
    counter = Gcra(5, 7, 400)
    passed = 0
    while not counter.step(now, 1.0)[1]:
        passed += 1
    assert passed == 400


def exactly(count: int, period: int, burst: int, events: list[tuple[Fraction, int]]) -> Iterator[Fraction]:
    """GCRA in exact seconds, as ITU-T I.371 writes it: how many seconds too early each event comes."""
    interval = Fraction(period, count)
    tat = Fraction(0)
    for now, cost in events:
        early = max(tat, now) + (cost - burst) * interval - now
        if early <= 0:
            tat = max(tat, now) + cost * interval
        yield early


GAPS = st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, 5)), min_size=1, max_size=60)


@given(st.integers(1, 100), st.sampled_from([1, 60, 3600]), st.integers(1, 10), GAPS)
def test_gcra_agrees_with_exact_fractions(count, period, burst, gaps):
    # Gaps in parts of the interval: so that events come about when there is room again.
    counter = Gcra(count, period, burst)
    now = Fraction(1_800_000_000)
    events = []
    for millionths, cost in gaps:
        now += Fraction(millionths, 1_000_000) * Fraction(period, count)
        events.append((now, cost))
    for (time, cost), early in zip(events, exactly(count, period, burst, events), strict=True):
        too_many = float(early) * count / period
        if abs(too_many) <= 4 * ROUNDING and too_many > 0:
            return  # within what is forgiven the two may part, and then differ in what they remember
        used, wait = counter.step(float(time), cost)
        assert wait == pytest.approx(max(0.0, float(early)), abs=1e-3 * period / count)
        assert 0 <= used <= burst + ROUNDING


EVENTS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), max_size=80)


@given(st.integers(1, 20), st.sampled_from([1.0, 7.0, 60.0, 86400.0]), EVENTS)
def test_no_window_of_any_position_holds_more_than_its_quota(amount, period, gaps):
    counter = Window(amount, period)
    now = 1_800_000_000.0
    passed: list[tuple[float, int]] = []
    for gap, cost in gaps:
        now += gap * period / 60
        if not counter.step(now, cost)[1]:
            passed.append((now, cost))
    for end, _ in passed:
        assert sum(cost for time, cost in passed if end - period <= time <= end) <= amount


@given(st.integers(1, 20), st.sampled_from([1.0, 7.0, 60.0, 86400.0]), EVENTS)
def test_a_window_gives_all_of_its_quota_back_one_part_late_at_the_latest(amount, period, gaps):
    counter = Window(amount, period)
    now = 1_800_000_000.0
    for gap, cost in gaps:
        now += gap * period / 60
        counter.step(now, cost)
    assert counter.step(now + period * (1 + 1 / SLICES) + 1e-3, amount) == (0.0, 0.0)


@given(st.integers(1, 8), st.lists(st.tuples(st.floats(0, 30), st.sampled_from("abcdefghijkl")), max_size=80))
def test_no_window_holds_more_different_values_than_allowed_and_a_refusal_is_never_for_nothing(amount, gaps):
    period = 60.0
    counter = Distinct(amount, period)
    now = 1_800_000_000.0
    last: dict[str, float] = {}
    for gap, value in gaps:
        now += gap
        live = {value for value, time in last.items() if time > now - period}
        used, wait = counter.step(now, value)
        assert used == len(live)
        assert bool(wait) == (value not in live and len(live) >= amount)
        if not wait:
            last[value] = now


@pytest.mark.parametrize("kind", ["gcra", "window"])
@given(
    st.integers(1, 20),
    st.sampled_from([1.0, 60.0, 3600.0]),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=40),
    st.integers(1, 5),
)
def test_what_waits_as_long_as_it_is_told_passes_and_what_comes_sooner_does_not(
    kind, amount, period, gaps, cost
):
    counter = KINDS[kind](amount, period, amount)
    now = 1_800_000_000.0
    for gap, earlier in gaps:
        now += gap * period / 60
        counter.step(now, earlier)
    wait = counter.step(now, cost)[1]
    if not wait or cost > amount:
        return
    # A hair's breadth on either side: a hundredth of the time between two events, or of a part of the window.
    hair = period / (amount if kind == "gcra" else SLICES) / 100
    if wait > hair:
        assert counter.step(now + wait - hair, cost)[1] > 0
    assert counter.step(now + wait + hair / 1000, cost)[1] == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from("abcdef")), min_size=1, max_size=40))
def test_a_new_value_that_waits_as_long_as_it_is_told_passes(gaps):
    counter = Distinct(3, 60.0)
    now = 1_800_000_000.0
    for gap, value in gaps:
        now += gap
        counter.step(now, value)
    wait = counter.step(now, "new")[1]
    if wait:
        assert counter.step(now + wait * 0.999, "new")[1] > 0
        assert counter.step(now + wait + 1e-6, "new")[1] == 0


def test_asking_remembers_nothing():
    slices, seen = Slices(), Seen()
    for _ in range(3):
        assert gcra(5.0, 3.0, 1.0, 10.0, 1.0) == (2.0, 0.0, 6.0)
        assert window(slices, 100.0, 1.0, 1.0, 60.0)[:2] == (0.0, 0.0)
        assert distinct(seen, "a", 100.0, 1.0, 60.0)[:2] == (0.0, 0.0)
    assert not slices.counts
    assert not seen


def test_a_cost_above_the_whole_limit_is_refused_even_when_nothing_is_in_use():
    assert Gcra(10, 60, 10).step(1_800_000_000.0, 11)[1] > 0
    assert Window(10, 60).step(1_800_000_000.0, 11)[1] > 0
