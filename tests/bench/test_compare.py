import pytest

from mxweir_bench.compare import Estimate, Spread, added, mean, quotient, ratio, spread, trimmed


def test_a_spread_is_the_median_and_the_middle_half() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)


def test_one_round_is_its_own_spread() -> None:
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_no_rounds_have_no_spread() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        spread([])


def test_a_ratio_is_taken_within_a_round_so_that_a_slow_minute_drops_out() -> None:
    assert ratio([30.0, 15.0, 30.0], [100.0, 50.0, 100.0]) == Spread(0.3, 0.3, 0.3)


def test_a_difference_is_taken_within_a_round() -> None:
    assert added([3.0, 5.0], [2.0, 4.0]) == Spread(1.0, 1.0, 1.0)


def test_rounds_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_a_mean_leaves_out_the_rounds_that_something_else_disturbed() -> None:
    assert trimmed([1.0, 2.0, 3.0, 4.0, 1000.0]) == 3.0


def test_rounds_that_agree_have_no_error() -> None:
    assert mean([4.0] * 10) == Estimate(4.0, 0.0)


def test_the_error_of_a_mean_is_about_the_scatter_by_the_root_of_the_rounds() -> None:
    rounds = [float(i % 10) for i in range(400)]
    assert mean(rounds).value == pytest.approx(4.5)
    assert 0.1 < mean(rounds).error < 0.3


def test_a_quotient_is_of_means_because_a_single_round_may_be_nothing_but_noise() -> None:
    assert quotient([2.0, -1.0, 5.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0]).value == 2.0


def test_what_is_shared_by_both_of_a_quotient_does_not_widen_its_error() -> None:
    base = [float(1 + i % 7) for i in range(100)]
    assert quotient([2 * value for value in base], base) == Estimate(2.0, 0.0)
