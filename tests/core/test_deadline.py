import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.deadline import Deadline
from mxweir.testing import SettableClock


def test_what_is_left_shrinks_with_the_clock_and_never_below_nothing():
    clock = SettableClock(100.0)
    deadline = Deadline.after(8.0, clock)
    assert deadline.at == 108.0
    assert deadline.left() == 8.0
    clock.advance(7.5)
    assert deadline.left() == 0.5
    clock.advance(0.5)
    assert deadline.left() == 0.0
    clock.advance(1000.0)
    assert deadline.left() == 0.0


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 1), st.floats(0, 100))
def test_a_share_is_never_later_than_the_whole(seconds, passed, part, more):
    clock = SettableClock(1000.0)
    whole = Deadline.after(seconds, clock)
    clock.advance(passed)
    share = whole.share(part)
    assert share.left() == pytest.approx(whole.left() * part, abs=1e-9)
    clock.advance(more)
    assert share.left() <= whole.left() + 1e-9


def test_a_share_of_what_is_over_is_nothing():
    clock = SettableClock()
    whole = Deadline.after(1.0, clock)
    clock.advance(5.0)
    assert whole.share(0.7).left() == 0.0


def test_without_a_clock_it_is_the_monotonic_one_that_nobody_can_set(monkeypatch):
    deadline = Deadline.after(100.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 90 < deadline.left() <= 100
    assert deadline.at == pytest.approx(time.monotonic() + 100, abs=10)
