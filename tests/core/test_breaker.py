import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.breaker import Breaker, Settings, State

SETTINGS = Settings(window=30.0, min_calls=5, failures=0.5, slow=0.8, slow_after=4.0, pause=10.0, probes=3)


def breaker(**settings):
    return Breaker(dataclasses.replace(SETTINGS, **settings), 0.0)


def call(breaker, now, ok=True, seconds=0.1):
    """One call from begin to end at one moment; what the breaker had to tell."""
    permit = breaker.allow(now)
    assert permit is not None
    return breaker.record(permit, ok, seconds, now)


def opened(now=0.0, **settings):
    """A breaker that has opened at that moment."""
    made = breaker(**settings)
    for _ in range(SETTINGS.min_calls):
        call(made, now, ok=False)
    assert made.state is State.OPEN
    return made


def test_it_opens_when_the_share_of_failures_is_reached():
    made = breaker()
    told = [call(made, 1.0, ok) for ok in (True, True, True, False, False, False)]
    assert told[:-1] == [None] * 5
    assert (told[-1].state, told[-1].why) == (State.OPEN, "3 of 6 calls in 30 s failed")
    assert made.state is State.OPEN


def test_few_calls_open_nothing_however_bad_they_are():
    made = breaker()
    assert [call(made, 1.0, ok=False) for _ in range(4)] == [None] * 4
    assert made.state is State.CLOSED


def test_it_opens_when_the_share_of_slow_calls_is_reached_though_all_are_answered():
    made = breaker()
    call(made, 1.0)
    told = [call(made, 1.0, seconds=4.0) for _ in range(4)]
    assert told[-1].why == "4 of 5 calls in 30 s took 4 s or longer"


def test_what_lies_further_back_than_the_window_counts_no_more():
    made = breaker()
    for moment in range(4):
        call(made, moment, ok=False)
    assert call(made, 40.0, ok=False) is None
    assert made.state is State.CLOSED


def test_open_it_lets_nothing_through_until_the_pause_is_over():
    made = opened(100.0)
    assert not made.would_allow(109.9)
    assert made.allow(109.9) is None
    assert made.would_allow(110.0)
    assert made.allow(110.0) is not None
    assert made.state is State.HALF_OPEN


def test_half_open_one_call_at_a_time_passes_and_enough_good_ones_close_it():
    made, told = opened(0.0), []
    for done in range(3):
        permit = made.allow(20.0 + done)
        assert permit is not None
        assert made.allow(20.0 + done) is None
        told.append(made.record(permit, True, 0.1, 20.5 + done))
    assert told[:2] == [None, None]
    assert (told[2].state, told[2].seconds) == (State.CLOSED, 22.5)
    assert made.state is State.CLOSED


@pytest.mark.parametrize(("ok", "seconds"), [(False, 0.1), (True, 4.0)])
def test_a_bad_or_slow_probe_opens_it_again_for_a_whole_pause_and_is_not_told_again(ok, seconds):
    made = opened(0.0)
    call(made, 10.0)
    assert call(made, 11.0, ok, seconds) is None
    assert made.state is State.OPEN
    assert made.allow(20.9) is None
    assert made.allow(21.0) is not None


def test_an_outage_is_told_with_its_whole_length_however_many_probes_failed():
    made = opened(100.0)
    for moment in (110.0, 120.0, 130.0):
        call(made, moment, ok=False)
    told = [call(made, moment) for moment in (140.0, 141.0, 142.0)]
    assert (told[-1].state, told[-1].seconds) == (State.CLOSED, 42.0)


def test_after_it_has_closed_former_failures_count_no_more():
    made = opened(0.0)
    for moment in (10.0, 10.1, 10.2):
        call(made, moment)
    assert [call(made, 10.3, ok=False) for _ in range(4)] == [None] * 4


def test_a_forgotten_probe_makes_room_for_the_next_one():
    made = opened(0.0)
    permit = made.allow(10.0)
    made.forget(permit)
    assert made.state is State.HALF_OPEN
    assert made.allow(10.0) is not None


@pytest.mark.parametrize("ok", [True, False])
def test_a_call_that_began_before_the_breaker_opened_says_nothing_afterwards(ok):
    made = breaker()
    late = [made.allow(0.0) for _ in range(10)]
    for _ in range(5):
        call(made, 1.0, ok=False)
    probe = made.allow(11.0)
    for permit in late:
        assert made.record(permit, ok, 11.0, 11.0) is None
        made.forget(permit)
    assert made.state is State.HALF_OPEN
    assert made.allow(11.0) is None  # the probe is still out
    assert made.record(probe, True, 0.1, 11.1) is None


def test_new_settings_hold_from_the_next_call_on_and_leave_the_state():
    made = opened(0.0)
    made.settings = dataclasses.replace(SETTINGS, probes=1)
    assert made.state is State.OPEN
    assert call(made, 10.0).state is State.CLOSED


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "good", "bad", "slow", "forget"]),
        st.floats(0, 6),
        st.integers(0, 9),
    ),
    max_size=150,
)


class Walk:
    """Takes a breaker through a history, and holds it to its rules at each step."""

    def __init__(self):
        self.breaker, self.now, self.out = breaker(), 0.0, []
        self.opened_at, self.good_probes = 0.0, 0

    def begin(self):
        before, foretold = self.breaker.state, self.breaker.would_allow(self.now)
        permit = self.breaker.allow(self.now)
        assert foretold == (permit is not None)
        if before is State.OPEN:
            assert foretold == (self.now >= self.opened_at + SETTINGS.pause)
            self.good_probes = 0
        if permit is not None:
            self.out.append(permit)
        if before is State.CLOSED:
            assert permit is not None
        else:
            assert sum(one == self.breaker._permit for one in self.out) <= 1

    def end(self, what, permit):
        before = self.breaker.state
        if what == "forget":
            self.breaker.forget(permit)
            assert self.breaker.state is before
            return
        is_probe = permit == self.breaker._permit and before is State.HALF_OPEN
        self.good_probes += is_probe and what == "good"
        told = self.breaker.record(permit, what != "bad", 5.0 if what == "slow" else 0.1, self.now)
        after = self.breaker.state
        assert (told is not None) == ((before, after) in TOLD)
        assert (before, after) != (State.OPEN, State.CLOSED)
        if (before, after) == (State.HALF_OPEN, State.CLOSED):
            assert self.good_probes == SETTINGS.probes
        if before is not State.OPEN and after is State.OPEN:
            self.opened_at = self.now


TOLD = {(State.CLOSED, State.OPEN), (State.HALF_OPEN, State.CLOSED)}


@given(STEPS)
def test_whatever_happens_its_rules_hold(steps):
    walk = Walk()
    for what, wait, which in steps:
        walk.now += wait
        if what == "begin":
            walk.begin()
        elif walk.out:
            walk.end(what, walk.out.pop(which % len(walk.out)))
        assert len(walk.breaker._slices) <= 11


@given(st.lists(st.tuples(st.floats(0, 8), st.booleans(), st.booleans()), max_size=80))
def test_it_opens_exactly_when_a_share_is_reached_within_the_window(calls):
    made, now = breaker(), 0.0
    seen: list[tuple[int, bool, bool]] = []
    for wait, ok, slow in calls:
        now += wait
        number = int(now * 10 // SETTINGS.window)
        seen.append((number, ok, slow))
        recent = [one for one in seen if one[0] > number - 10]
        failed = sum(not ok for _, ok, _ in recent)
        late = sum(slow for _, _, slow in recent)
        reached = (failed and failed >= 0.5 * len(recent)) or (late and late >= 0.8 * len(recent))
        call(made, now, ok, 4.0 if slow else 0.1)
        assert (made.state is State.OPEN) == bool(reached and len(recent) >= SETTINGS.min_calls)
        if made.state is State.OPEN:
            return
