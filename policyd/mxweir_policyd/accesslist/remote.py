"""The list as Redis has it: names, scripts, what they are told and what their replies mean.

The daemons and the command line share it; each has a client of its own.
"""

from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from mxweir.redis.script import Script
from mxweir_policyd.accesslist.record import KEPT_WITHDRAWN, MOST, Record, parse

PAGE = 200
"""Records that are read, or given back, in one call: one to three milliseconds of Redis's time."""


def _script(name: str) -> Script:
    return Script((Path(__file__).parent / f"{name}.lua").read_text())


CHANGE, SINCE, RESTORE = _script("change"), _script("since"), _script("restore")


class Names:
    """What the list is called in Redis. The braces keep it at one place of a Cluster."""

    def __init__(self, prefix: str) -> None:
        records = f"{prefix}:{{access}}"
        self.records = records
        self.keys = (records, f"{records}:changes", f"{records}:ends")
        self.channel = f"{prefix}:access"


class Reading(NamedTuple):
    """What Redis told: its time and the list's versions in microseconds, and a page of records.

    `read` is the version up to which the page goes; `bad` counts what was no record.
    """

    now: int
    history: str
    version: int
    floor: int
    records: list[Record]
    read: int
    more: bool
    bad: int


def change(names: Names, record: Record) -> list[str | int]:
    """ARGV of CHANGE for a word that an operator says; withdrawing is one without an action."""
    withdraw = "" if record.action else "withdraw"
    end = _end(record) if record.action else ""
    return [names.channel, MOST, int(KEPT_WITHDRAWN * 1000), record.field, record.said(), end, withdraw]


def restore(names: Names, saw: str, known: int, records: Iterable[Record]) -> list[str | int]:
    """ARGV of RESTORE."""
    words = [(each.field, str(each.made), each.said(), _end(each)) for each in records]
    return [names.channel, MOST, saw, str(known), *(text for word in words for text in word)]


def read(reply: object, after: int = 0) -> Reading:
    """What SINCE replied of what was said `after` a version; ValueError for what it cannot have said."""
    if not isinstance(reply, list) or len(reply) < 4 or not all(isinstance(part, bytes) for part in reply):
        raise ValueError(f"no reply of the script: {reply!r:.100}")
    now, history, version, floor = (part.decode() for part in reply[:4])
    lines = reply[4:]
    # One that is no later, though it is asked for what is: with it, reading on would never end.
    records = [record for line in lines if (record := record_of(line)) is not None and record.version > after]
    # Where the page ends, the last line that can be read tells.
    last = max((record.version for record in records), default=int(version))
    more = len(lines) >= PAGE and last < int(version)
    bad = len(lines) - len(records)
    return Reading(int(now), history, int(version), int(floor), records, last, more, bad)


def to_give_back(reading: Reading, history: str, records: Sequence[Record]) -> list[Record]:
    """What a host knows of `history`, and Redis lacks."""
    has = reading.floor if reading.history != history else max(reading.floor, reading.version)
    return [record for record in records if record.version > has]


def in_step(reading: Reading, history: str, known: int) -> bool:
    """Whether a host that knows that much can read on from there."""
    same = reading.history == history or known == 0  # who knows nothing is in step with every history
    return same and reading.floor <= known <= reading.version


def record_of(line: bytes) -> Record | None:
    """A record as Redis has it; None if it is none."""
    try:
        return parse(line.decode())
    except ValueError:
        return None


def _end(record: Record) -> str:
    return "" if record.until == inf else str(int(record.until * 1000))
