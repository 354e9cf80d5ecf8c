"""Quantities as an operator writes them: durations, sizes, shares.

Each reader takes the text of one setting and returns a plain number, or raises
ValueError with a sentence that says what would be right. Each `format_*` gives
back a text that its reader accepts.
"""

import re

_DURATION = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z%]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Read `250ms`, `8s`, `10m`, `1h` or `7d` as seconds."""
    number, unit = _split(text, _DURATION, "a duration such as 250ms, 8s, 10m, 1h or 7d")
    return number * _DURATION[unit]


def parse_size(text: str) -> int:
    """Read `512KiB` or `20MB` as bytes."""
    number, unit = _split(text, _SIZE, "a size such as 512KiB or 20MB")
    return round(number * _SIZE[unit])


def parse_share(text: str) -> float:
    """Read `20%` as 0.2."""
    number, _ = _split(text, {"%": 1}, "a share such as 20%")
    if number > 100:
        raise ValueError("a share is at most 100%")
    return number / 100


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that divides them."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _DURATION[unit] and seconds % _DURATION[unit] == 0:
            return f"{seconds / _DURATION[unit]:.0f}{unit}"
    return f"{_plain(seconds * 1000)}ms"


def format_size(size: int) -> str:
    """Write bytes in the largest unit that divides them."""
    for unit, factor in sorted(_SIZE.items(), key=lambda item: -item[1]):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def format_share(share: float) -> str:
    """Write 0.2 as `20%`."""
    return f"{_plain(share * 100)}%"


def _plain(number: float) -> str:
    """Without an exponent, which the readers would not take."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _split(text: str, units: dict[str, float] | dict[str, int], wanted: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not {wanted}")
    return float(match[1]), match[2]
