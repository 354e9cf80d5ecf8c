"""One value of the TOML document → what the program uses.

A reader takes what `tomllib` gave for one key and returns the value, or raises
ValueError with a sentence that says what would be right.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from mxweir import endpoint, units
from mxweir.domains.names import valid_domain
from mxweir.ratelimit.rate import Rate, parse_rate
from mxweir.redis.url import Url, parse_url

T = TypeVar("T")
V = TypeVar("V")
Reader = Callable[[object], T]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def text(value: object) -> str:
    """Any string of one line."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{value!r} is not a text of one line in quotes")
    return value


def name(value: object) -> str:
    """A name that may stand in logs and as a metric label."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a name of up to 32 small letters, digits, '-' and '_'")
    return value


def boolean(value: object) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def integer(least: int, most: int) -> Reader[int]:
    """A whole number from `least` to `most`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{value!r} is not a whole number from {least} to {most}")
        return value

    return read


def number(value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 <= value <= 1e6:
        raise ValueError(f"{value!r} is not a number such as 5.0")
    return float(value)


def threshold(value: object) -> float:
    """A finite number of points, or "never", which is infinite."""
    if value == "never":
        return math.inf
    if isinstance(value, str):
        raise ValueError(f'{value!r} is neither a number such as 5.0 nor "never"')
    return number(value)


def factor(value: object) -> float:
    """What an amount is multiplied by."""
    found = number(value)
    if not 0.01 <= found <= 100:
        raise ValueError(f"{value!r} lies outside 0.01 to 100")
    return found


def reply_text(value: object) -> str:
    """What a refusal says: ASCII that may stand in an SMTP reply."""
    found = text(value)
    if not found or not found.isascii() or "%" in found or len(found) > 200:
        raise ValueError(f'{value!r} is not a text of up to 200 characters of ASCII without "%"')
    return found


def mail_domain(value: object) -> str:
    """A domain in folded form; with a dot in front, it and all below."""
    given = _string(value, 'a domain such as "example.org" or ".example.org"')
    tree = "." if given.startswith(".") else ""
    return tree + valid_domain(given.removeprefix("."))


def one_of(*words: str) -> Reader[str]:
    """One of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{value!r} is none of {_quoted(words)}")
        return value

    return read


def several_of(*words: str) -> Reader[tuple[str, ...]]:
    """A list of some of a few words."""
    return listed(one_of(*words))


def listed(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list whose every item is read by `read`."""

    def read_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list in [brackets]")
        return tuple(all_of(read, value))

    return read_all


def all_of(read: Callable[[V], T], values: Iterable[V]) -> list[T]:
    """Read every value; a ValueError names all that are wrong."""
    found: list[T] = []
    wrong: list[str] = []
    for value in values:
        try:
            found.append(read(value))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return found


def one_or_more(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """One item, or a list of at least one."""
    many = listed(read)

    def read_any(value: object) -> tuple[T, ...]:
        items = many(value) if isinstance(value, list) else (read(value),)
        if not items:
            raise ValueError("an empty list; name at least one")
        return items

    return read_any


def duration(least: str, most: str) -> Reader[float]:
    """A duration from `least` to `most`, in seconds."""

    def read(value: object) -> float:
        seconds = units.parse_duration(_string(value, "a duration such as 250ms, 8s, 10m, 1h or 7d"))
        if not units.parse_duration(least) <= seconds <= units.parse_duration(most):
            raise ValueError(f"{value!r} lies outside {least} to {most}")
        return seconds

    return read


def size(least: str, most: str) -> Reader[int]:
    """A size from `least` to `most`, in bytes."""

    def read(value: object) -> int:
        count = units.parse_size(_string(value, "a size such as 512KiB or 20MB"))
        if not units.parse_size(least) <= count <= units.parse_size(most):
            raise ValueError(f"{value!r} lies outside {least} to {most}")
        return count

    return read


def share(value: object) -> float:
    """A share such as 20%, as 0.2."""
    return units.parse_share(_string(value, "a share such as 20%"))


def rate(value: object) -> Rate:
    """A rate such as 600/minute."""
    return parse_rate(_string(value, "a rate such as 600/minute"))


def address(value: object) -> endpoint.Endpoint:
    """An address in Postfix's notation."""
    if isinstance(value, list):
        raise ValueError(f"{value!r} is a list; one address stands here, in quotes alone")
    return endpoint.parse(
        _string(value, "an address such as inet:127.0.0.1:10040 or unix:/run/mxweir/policy")
    )


def loopback(value: object) -> endpoint.Endpoint | None:
    """A TCP address of this host alone, or nothing ("")."""
    if value == "":
        return None
    found = address(value)
    if isinstance(found, endpoint.Unix) or not is_loopback(found.host):
        raise ValueError(
            f"{value!r} is not on the loopback; the page has no password: use inet:127.0.0.1:PORT"
        )
    return found


def file_mode(value: object) -> int:
    """Permissions of a socket, in octal in quotes."""
    digits = _string(value, "permissions in octal, such as 0660")
    if re.fullmatch(r"0?[0-7]{3}", digits) is None:
        raise ValueError(f'{value!r} is not a mode in octal, such as "0660"')
    return int(digits, 8)


def path(value: object) -> Path:
    """An absolute path."""
    found = Path(_string(value, "an absolute path"))
    if not found.is_absolute() or "\0" in str(found):
        raise ValueError(f"{value!r} is not an absolute path")
    return found


def redis_url(value: object) -> Url:
    """Where Redis is; may hold a password, so that no error shows any part of it."""
    return parse_url(text(value))


def key_prefix(value: object) -> str:
    """What the names of our keys in Redis begin with: no sign that is special in a pattern or a hash tag."""
    found = _string(value, "a prefix of keys such as mxweir")
    if re.fullmatch(r"[A-Za-z0-9._-]{1,32}", found) is None:
        raise ValueError(f"{value!r} is no prefix of up to 32 letters, digits, '.', '_' and '-'")
    return found


def relation(value: object) -> str:
    """A view of PostgreSQL, or ""; it stands in queries as it is, so it may hold nothing else."""
    found = _string(value, "a view such as customers.relay_domains")
    if found and re.fullmatch(r"([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}", found) is None:
        raise ValueError(f"{value!r} is no name of a view in lower case, such as customers.relay_domains")
    return found


def network(value: object) -> Network:
    """A network such as 127.0.0.0/8; the host part must be zero."""
    try:
        return ipaddress.ip_network(_string(value, "a network such as 192.0.2.0/24"))
    except ValueError as error:
        raise ValueError(
            f"{value!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32: {error}"
        ) from None


def moment(value: object) -> float:
    """A date and time with its offset, in seconds since the epoch."""
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a date and time such as 2027-01-31T12:00:00Z (without quotes)")
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def delimiter(value: object) -> str:
    """Postfix's recipient_delimiter: a few characters, or none."""
    found = _string(value, "the characters of Postfix's recipient_delimiter")
    if len(found) > 4 or any(c.isalnum() or c in '@."' or not c.isprintable() or c == " " for c in found):
        raise ValueError(f"{value!r} cannot delimit an address extension; Postfix uses + or -")
    return found


def _string(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not {wanted}, in quotes")
    return value


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
