"""The express lane: one question, all its limits, no call in between.

Nearly every question is one more event of plain rates that all have room. For
that case this module writes, once a configuration, the straight-line function
that somebody would write by hand for exactly these limits, as `dataclasses`
writes `__init__`. For two limits, by sender and by organizational domain with
overrides, it reads:

    def express(facts, now):
        key0 = facts[1][0]
        at0 = now * rate0
        turn0 = table0.young.get(key0) or table0.old.get(key0, 0.0)
        turn0 = (turn0 if turn0 > at0 else at0) + 1.0
        if not key0 or turn0 - at0 > burst0:
            return False
        key1 = facts[1][2]
        ...
        if not key1 or turn1 - at1 > burst1 or key1 in own1:
            return False
        if len(table0.young) < table0.half:
            table0.young[key0] = turn0
        else:
            table0.put(key0, turn0)
        ...
        return True

It says either "all have room, and are charged" or "go the long way", and then
nothing is charged. The long way, `Limits.decide`, is what defines the answer; a
property test holds the two together. Five limits cost 40 % of the long way.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mxweir.facts import READERS, Facts
from mxweir.ratelimit.arithmetic import ROUNDING
from mxweir.ratelimit.memory import GcraTable

Express = Callable[[Facts, float], bool]

LONGEST_JOINED = 320
"""Characters in a key of three or more parts before it is hashed, which is left to the long way.

Two parts never make more than 1.3 KB, and need no look: each has up to 255 bytes, and the widest character
of one sets the width of both. Nor do 320 characters.
"""

_PLACES = {
    "client_address": "facts[0][0]",
    "client_network": "facts[0][1]",
    "sender": "facts[1][0]",
    "sender_domain": "facts[1][1]",
    "sender_org": "facts[1][2]",
    "recipient": "facts[2][0]",
    "recipient_domain": "facts[2][1]",
}
"""Where a key stands in Facts; the others are read by a call."""


def write_express(limits: Sequence[tuple[Sequence[str], GcraTable]], separator: str) -> Express:
    """The express lane of limits given by their keys and tables; parts of a key are joined by `separator`."""
    names: dict[str, Any] = {f"read_{name}": reader for name, reader in READERS.items()}
    asks: list[str] = []
    charges: list[str] = []
    for i, (keys, table) in enumerate(limits):
        names |= {
            f"table{i}": table,
            f"rate{i}": table.rate,
            f"burst{i}": table.burst + ROUNDING,
            f"own{i}": table.own,
        }
        asks += _ask(i, [_PLACES.get(key, f"read_{key}(facts)") for key in keys], separator, bool(table.own))
        charges += [
            f"if len(table{i}.young) < table{i}.half:",
            f"    table{i}.young[key{i}] = turn{i}",
            "else:",
            f"    table{i}.put(key{i}, turn{i})",
        ]
    body = "".join(f"    {line}\n" for line in (*asks, *charges, "return True"))
    exec(f"def express(facts, now):\n{body}", names)  # noqa: S102 - the text is our own, made of key names
    express: Express = names["express"]
    return express


def _ask(i: int, places: Sequence[str], separator: str, has_own: bool) -> list[str]:
    parts = [f"part{i}_{j}" for j in range(len(places))]
    lines = (
        [f"{part} = {place}" for part, place in zip(parts, places, strict=True)] if len(places) > 1 else []
    )
    lines.append(f"key{i} = " + (f" + {separator!r} + ".join(parts) if len(places) > 1 else places[0]))
    unknown = [f"not {part}" for part in parts] if len(places) > 1 else [f"not key{i}"]
    long = [f"len(key{i}) > {LONGEST_JOINED}"] if len(places) > 2 else []
    own = [f"key{i} in own{i}"] if has_own else []
    return [
        *lines,
        f"at{i} = now * rate{i}",
        f"turn{i} = table{i}.young.get(key{i}) or table{i}.old.get(key{i}, 0.0)",
        f"turn{i} = (turn{i} if turn{i} > at{i} else at{i}) + 1.0",
        f"if {' or '.join([*unknown, *long, f'turn{i} - at{i} > burst{i}', *own])}:",
        "    return False",
    ]
