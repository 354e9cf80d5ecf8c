"""Medians over rounds, and ratios and differences within a round.

A ratio is taken between two runs of the same round, seconds apart, and the
median of these is given: what slows the machine for a minute slows both, and
drops out. Differences likewise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the bounds of their middle half."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of one figure over the rounds; ValueError when there are none."""
    if not values:
        raise ValueError("no rounds")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """The spread of value : base, round by round; ValueError when the rounds do not pair up."""
    return spread([value / against for value, against in zip(values, base, strict=True)])


def added(values: Sequence[float], without: Sequence[float]) -> Spread:
    """The spread of value − without, round by round; ValueError when the rounds do not pair up."""
    return spread([value - less for value, less in zip(values, without, strict=True)])
