"""How long a rate's key lives: as long as it counts, and ten seconds more, a minute for who comes again."""

import math
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.config import LimitRule
from mxweir.ratelimit.rate import Rate
from mxweir.testing import question
from mxweir_ops.lab.counted import ERA, Counted

AGAIN = 60_000


def limits_of(counted: Callable[..., Counted], count: int, empty: bool = True) -> Counted:
    """A limit of so many a minute by sender."""
    return counted(LimitRule(name="l", key=("sender",), rate=Rate(count, 60.0)), empty=empty).at(0)


def life(limits: Counted) -> int:
    """Milliseconds from the begin of the set time until the one key there is ends."""
    (name,) = limits.servers.send("KEYS", "mxweir:l.*")
    return int(limits.servers.send("PEXPIRETIME", name)) - ERA * 1000


def test_a_charge_leaves_the_expiry_of_a_key_that_lives_long_enough(counted):
    limits = limits_of(counted, 60)
    lives = []
    for second in range(25):
        limits.at(second * 1_000_000).anew(question())
        lives.append(life(limits))
    assert lives == [11_000] * 11 + [72_000] * 14


def test_a_key_lives_longer_as_soon_as_it_counts_for_longer_than_it_would_live(counted):
    limits = limits_of(counted, 60)
    lives = [life(limits) for _ in range(30) if limits.anew(question())]
    assert lives == [11_000] * 11 + [72_000] * 19


@pytest.mark.parametrize("count", [600, 6000])
def test_a_key_that_counts_for_less_long_at_a_faster_rate_lives_for_less_long(count, counted):
    slower = limits_of(counted, 60)
    for questions in (30, 25):
        slower.anew(*[question()] * questions)
    faster = limits_of(counted, count, empty=False)
    faster.anew(question())
    assert life(faster) == math.ceil((56 * 60_000 / count + AGAIN) / 1000) * 1000


def test_a_key_of_a_time_to_come_lives_no_longer_than_one_of_now(counted):
    limits = limits_of(counted, 60).at(7_200_000_000)
    limits.anew(question())
    assert life(limits) == 7_211_000
    limits.at(0).anew(question())
    assert life(limits) == 120_000
    assert limits.figures(question()) == {"l": "60/60"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 62_500, 1_000_000, 9_999_999, 60_000_000, -500_000, -90_000_000]),
        st.sampled_from([1, 7, 60, 6000]),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=12,
)
"""Microseconds since the last row, the rate a minute that is configured then, questions in it."""


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_a_key_lives_as_long_as_it_counts_and_a_minute_more_at_most(counted, steps):
    by_count = {count: limits_of(counted, count) for count in (1, 7, 60, 6000)}
    now = 86_400_000_000
    for gap, count, questions in steps:
        now += gap
        limits = by_count[count].at(now)
        outcomes = limits.anew(*[question()] * questions)
        assert {getattr(event, "by", event) for event in limits.told.events} <= {"redis"}
        refused = [outcome.refusal for outcome in outcomes if outcome.refusal]
        # The most that can be in use is where a refused question says; else what the figure is rounded up to.
        (figure,) = limits.figures(question()).values()
        most = int(figure.split("/")[0]) * 60_000 / count
        least = refused[-1].wait * 1000 + (count - 1) * 60_000 / count if refused else most - 60_000 / count
        assert least - 1 <= life(limits) - now / 1000 <= most + AGAIN + 1000
        assert limits.servers.keys_without_expiry() == []
