"""Medians and means over rounds, and ratios and differences within a round.

A ratio is taken between two runs of the same round, seconds apart, and the
median of these is given: what slows the machine for a minute slows both, and
drops out. Differences likewise. Where the difference is small beside what it is taken of,
many short rounds and their trimmed mean say more than a median, and how far it may be off.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles

_TRIMMED = 5
"""At either end, one round in so many is left out of a mean: something else ran."""

_RESAMPLES = 200


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


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


def trimmed(values: Sequence[float]) -> float:
    """The mean without the lowest and the highest fifth; ValueError when there are no rounds."""
    if not values:
        raise ValueError("no rounds")
    cut = len(values) // _TRIMMED
    return fmean(sorted(values)[cut : len(values) - cut])


def mean(values: Sequence[float]) -> Estimate:
    """The trimmed mean over the rounds."""
    return _estimate(len(values), lambda rounds: trimmed([values[i] for i in rounds]))


def quotient(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """The trimmed mean of the values, of that of `base`; round by round they belong together.

    For values so small that the quotient of a single round says nothing.
    """

    def of(rounds: Sequence[int]) -> float:
        return trimmed([values[i] for i in rounds]) / trimmed([base[i] for i in rounds])

    return _estimate(len(values), of)


def _estimate(rounds: int, of: Callable[[Sequence[int]], float]) -> Estimate:
    """What `of` says of all rounds; the error by drawing them anew (bootstrap), the same at each call."""
    draw = random.Random(0)
    drawn = sorted(of([draw.randrange(rounds) for _ in range(rounds)]) for _ in range(_RESAMPLES))
    # Half the width of the middle 68 %: a quotient by nearly nothing would make a standard deviation endless.
    return Estimate(of(range(rounds)), (drawn[_RESAMPLES * 84 // 100] - drawn[_RESAMPLES * 16 // 100]) / 2)
