import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mxweir.backoff import Backoff

shares = st.floats(0.0, 1.0, exclude_max=True)


@given(st.lists(shares, max_size=60), st.floats(0.01, 10), st.floats(10, 1000))
def test_no_wait_is_longer_than_the_highest_ceiling_nor_than_double_the_one_before(
    drawn: list[float], first: float, most: float
) -> None:
    backoff = Backoff(first, most)
    for number, share in enumerate(drawn):
        assert 0 <= backoff.failed(share) <= min(most, first * 2.0**number)
    assert backoff.failures == len(drawn)


def test_the_ceiling_doubles_with_each_failure_and_falls_back_after_a_success() -> None:
    backoff = Backoff(1.0, 10.0)
    assert [backoff.failed(1.0) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.succeeded()
    assert backoff.failed(1.0) == 1.0


def test_fifty_hosts_that_lost_their_server_together_come_back_spread_over_time() -> None:
    """Each tries until the server is back after 20 seconds; no second sees more than a fifth of them."""
    source = random.Random(1)
    tries: Counter[int] = Counter()
    back: Counter[int] = Counter()
    for _ in range(50):
        backoff, now = Backoff(1.0, 10.0), 0.0
        while now < 20.0:
            now += backoff.failed(source.random())
            tries[int(now)] += 1
        back[int(now)] += 1
    assert max(back.values()) <= 15
    assert len(back) >= 6
    assert all(number <= 15 for second, number in tries.items() if second >= 5)
