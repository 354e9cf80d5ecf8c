"""From a key as an operator writes it to the counters that it has, and back.

An operator thinks of "192.0.2.7", "a.example", "bob@a.example", or of a pair with a
comma between; each limit by such a key counts it folded. What cannot be a key of a
limit is passed over, and where folding shows that it never was one, that is told.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any, NamedTuple

from mxweir.address import NULL_SENDER
from mxweir.config.checks import value_problems
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limit, folded_key, show_key
from mxweir.ratelimit.memory import Row

_ADDRESSES = ("sender", "recipient", "from", "reply_to")
_DOMAINS = ("sender_domain", "sender_org", "recipient_domain", "from_org", "reply_to_org")


class Place(NamedTuple):
    """One counter: a limit, and a key as it has it."""

    limit: Limit
    key: str


class Use(NamedTuple):
    """How much of a limit a key uses: of `most` (None: unlimited); seconds until there is room again."""

    limit: str
    key: str
    used: int
    most: int | None
    wait: float
    mode: str
    rate: str


class Places(NamedTuple):
    """The counters that a key has, and why it has none with other limits, one line each."""

    found: list[Place]
    passed_over: list[str]


def places_of(limits: Iterable[Limit], text: str, folder: Folder) -> Places:
    """The counters of what an operator wrote: one part, or several with commas between."""
    found: list[Place] = []
    passed_over: list[str] = []
    for limit in limits:
        names = limit.rule.key
        parts = [part.strip() for part in text.split(",")] if len(names) > 1 else [text.strip()]
        if len(parts) != len(names):
            passed_over.append(f"{limit.name}: its key is {', '.join(names)}; write all, with commas between")
        elif all(map(_can_be, names, parts)):
            parts = [
                _network(part, folder) if name == "client_network" else part
                for name, part in zip(names, parts, strict=True)
            ]
            problem = next(
                (
                    p
                    for name, part in zip(names, parts, strict=True)
                    for p in value_problems(name, part, folder)
                ),
                None,
            )
            if problem is None:
                found.append(Place(limit, folded_key(names, parts, folder)))
            else:
                passed_over.append(f"{limit.name}: {problem}")
    return Places(found, passed_over)


def use(place: Place, used: int, wait: float) -> Use:
    """What an operator is shown of a counter."""
    limit, key = place
    most = limit.paces.of(key).burst
    return Use(
        limit.name,
        show_key(key),
        used,
        None if most == float("inf") else int(most),
        wait,
        limit.rule.mode,
        str(limit.rate(key)),
    )


def used_of(row: Row) -> float:
    """How much a row of a table says is in use: a rate's events, those in the parts of a window, values."""
    held: Any = row[1]
    if not isinstance(held, list):
        return float(held)
    return float(sum(1 if isinstance(first, str) else second for first, second in held))


def _can_be(name: str, text: str) -> bool:
    """Whether an operator can have meant a key of this name."""
    if name in ("client_address", "client_network"):
        return _is_client(text)
    if "," in text:
        return False  # several parts; a comma in an address is legal, and nobody's
    if name in _ADDRESSES:
        return "@" in text or text == NULL_SENDER or not ("." in text or "/" in text or ":" in text)
    if name in _DOMAINS:
        return "@" not in text and "/" not in text and not _is_client(text)
    return True


def _is_client(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def _network(text: str, folder: Folder) -> str:
    """A single address stands for the network that it is counted as."""
    return text if "/" in text else folder.client[text.encode()].network
