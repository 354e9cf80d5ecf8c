"""Rates as an operator writes them: `100/second`, `600/minute`, `20MB/hour`."""

import re
from dataclasses import dataclass, field

from mxweir.units import parse_size

_PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
_RATE = re.compile(r"\s*(\d{1,18})\s*([A-Za-z]*)\s*/\s*(\d{0,9})\s*([a-z]+?)s?\s*", re.ASCII)
_MOST = 10**12
"""Counts above this lose their last digit in a double, and nobody means them."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of something in a period of that many seconds; `in_bytes` if it was written as a size."""

    count: int
    period: float
    in_bytes: bool = field(default=False, compare=False)

    @property
    def per_second(self) -> float:
        """How many come free each second."""
        return self.count / self.period

    def __str__(self) -> str:
        for name, seconds in reversed(_PERIODS.items()):
            if self.period % seconds == 0:
                times = round(self.period / seconds)
                return f"{self.count}/{name}" if times == 1 else f"{self.count}/{times} {name}s"
        raise AssertionError(self.period)


def parse_rate(text: str) -> Rate:
    """Read `600/minute`, `3/10 minutes` or, for bytes, `20MB/hour`; ValueError says what is wrong."""
    match = _RATE.fullmatch(text)
    if match is None or match[4] not in _PERIODS:
        raise ValueError(f"{text!r} is not a rate such as 100/second, 600/minute, 50/hour or 500/day")
    count = parse_size(match[1] + match[2]) if match[2] else int(match[1])
    times = int(match[3] or 1)
    if not 0 < count <= _MOST or not 0 < times <= 366:
        raise ValueError(f"{text!r}: a rate counts from 1 to {_MOST} in 1 to 366 periods")
    return Rate(count, times * _PERIODS[match[4]], bool(match[2]))
