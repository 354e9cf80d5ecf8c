import pytest

from mxweir.redis.offset import Offset
from mxweir.testing import SettableClock

AHEAD = 3_000_000
"""µs by which Redis's clock is ahead."""


class Network:
    """Redis at the other end of a way of so many seconds."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.offset = Offset(self.clock)
        self.ahead = AHEAD

    def now(self) -> int:
        return int(self.clock.now * 1e6) + self.ahead

    def call(self, there: float, back: float, timeout: float = 0.1) -> bool:
        """Whether a call is done that takes so long there, and its answer so long back."""
        not_after = self.offset.not_after(timeout)
        self.clock.advance(there)
        now = self.now()
        self.clock.advance(back)
        self.offset.learn(now)
        return not_after == 0 or now <= not_after


def test_the_first_call_is_meant_for_whenever_it_comes():
    assert Offset(SettableClock()).not_after(0.1) == 0
    assert Network().call(3600.0, 0.0)


def test_a_call_is_done_in_the_first_half_of_its_time():
    network = Network()
    network.call(0.0, 0.0)
    assert network.call(0.049, 0.0)
    assert not network.call(0.051, 0.0)


@pytest.mark.parametrize("way", [0.001, 0.02, 0.024])
def test_a_long_way_is_no_reason_to_be_late(way):
    network = Network()
    assert all(network.call(way, way) for _ in range(5))


def test_one_answer_that_took_long_does_not_make_the_next_call_late():
    network = Network()
    network.call(0.001, 0.001)
    network.call(0.001, 0.3)
    assert network.call(0.001, 0.001)


def test_a_clock_that_was_set_forward_is_known_from_the_answer_that_says_late():
    network = Network()
    network.call(0.001, 0.001)
    network.ahead += 3_600_000_000
    assert not network.call(0.001, 0.001)
    assert network.call(0.001, 0.001)


def test_a_clock_that_was_set_back_is_known_within_half_a_minute():
    network = Network()
    network.call(0.001, 0.001)
    network.ahead -= 3_600_000_000
    for _ in range(30):
        assert network.call(0.001, 0.001)
        network.clock.advance(1.0)
    assert not network.call(0.06, 0.001)
