import pytest

from mxweir_bench.compare import Spread, added, ratio, spread


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
