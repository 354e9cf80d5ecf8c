import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.testing import score
from mxweir_milter.verdict import Failed, Outcome, Reason, Thresholds, judge, scored

ALL = Thresholds(5.0, 8.0, 12.0)


@pytest.mark.parametrize(
    ("points", "thresholds", "outcome"),
    [
        (-3.0, ALL, Outcome.HAM),
        (4.999, ALL, Outcome.HAM),
        (5.0, ALL, Outcome.TAGGED),
        (7.999, ALL, Outcome.TAGGED),
        (8.0, ALL, Outcome.QUARANTINED),
        (11.999, ALL, Outcome.QUARANTINED),
        (12.0, ALL, Outcome.REJECTED),
        (1000.0, Thresholds(5.0), Outcome.TAGGED),
        (1000.0, Thresholds(5.0, 8.0), Outcome.QUARANTINED),
        (8.5, Thresholds(5.0, reject_at=12.0), Outcome.TAGGED),
        (12.0, Thresholds(5.0, reject_at=12.0), Outcome.REJECTED),
        (12.0, Thresholds(12.0, 12.0, 12.0), Outcome.REJECTED),
    ],
)
def test_the_highest_threshold_reached_decides(points, thresholds, outcome):
    assert judge(score(points), thresholds) is outcome


@given(st.sampled_from(Reason))
def test_without_a_score_a_message_is_unscanned_whatever_the_thresholds(reason):
    assert judge(Failed(reason), Thresholds(-100.0, -100.0, -100.0)) is Outcome.UNSCANNED


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e7])
def test_a_number_that_is_no_score_is_refused(number):
    with pytest.raises(ValueError, match="no usable score"):
        scored(number, 5.0, [], "spamd")
    with pytest.raises(ValueError, match="no usable score"):
        scored(5.0, number, [], "spamd")


def test_symbols_are_plain_names_and_not_too_many():
    symbols = [
        "GOOD_ONE",
        "",
        "two words",
        "line\nbreak",
        "x" * 81,
        "caf\u00e9",
        *[f"S{i}" for i in range(500)],
    ]
    kept = scored(1.0, 5.0, symbols, "spamd").symbols
    assert kept[:2] == ("GOOD_ONE", "S0")
    assert len(kept) == 200


def test_mail_that_no_retry_can_get_scanned_passes_whatever_the_policy():
    assert {reason for reason in Reason if reason.passes} == {
        Reason.NO_ENGINE,
        Reason.TOO_LARGE,
        Reason.ENGINE_SKIPPED,
        Reason.INTERNAL,
    }
