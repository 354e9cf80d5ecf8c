"""An operator's word about one value, and the line that it is kept and sent as. Pure.

    VERSION MADE [key, value, action, reason, expires, by]

The numbers stand in front because Redis's scripts write them, both in microseconds.
`made` decides which of two words about the same value is the later. `version` is the
moment at which the list got it, always later than that of any word before: a host
reads on from the last version that it knows. The two differ for what was given back
to a Redis that had lost it. A withdrawn entry stays as a word of its own for a day
(`KEPT_WITHDRAWN`), so that a host which was away learns of it.
"""

import json
from collections.abc import Iterator
from math import inf, isfinite
from sys import intern
from typing import NamedTuple

from mxweir.access import Entry
from mxweir.config import AccessEntry
from mxweir.config.checks import access_problems
from mxweir.config.readers import network
from mxweir.facts import KEYS, Folder

MOST = 100_000
"""Entries of a list; sources by the million belong into a DNS list, which Postfix can ask."""

LONGEST_VALUE = 255
LONGEST_REASON = 200
"""Characters; a reason is read by strangers, in the line of an SMTP reply."""

LONGEST_BY = 100
KEPT_WITHDRAWN = 86_400.0
"""Seconds for which it is known that an entry was withdrawn."""

_LATEST = 253_402_300_800.0
"""The end of the year 9999, in seconds since the epoch."""


class Record(NamedTuple):
    """What is said of a folded value; `expires` in seconds since the epoch, `made`, `version` in µs.

    `action` is block, allow, or "" for what was withdrawn.
    """

    key: str
    value: str
    action: str
    reason: str = ""
    expires: float = inf
    by: str = ""
    made: int = 0
    version: int = 0

    @property
    def field(self) -> str:
        """What it is about: there is one word about each."""
        return f"{self.key} {self.value}"

    @property
    def until(self) -> float:
        """When it may be forgotten."""
        return self.expires if self.action else self.made / 1e6 + KEPT_WITHDRAWN

    def repeats(self, before: "Record | None") -> bool:
        """Whether it is the very word that was there before, though the list may have got it anew."""
        return before is not None and before._replace(version=self.version) == self

    def entry(self) -> Entry:
        """What the access list looks up: the later the word, the lower its order."""
        return Entry(-self.version, self.action == "allow", self.key, self.value, self.reason, self.expires)

    def said(self) -> str:
        """The part that no script changes."""
        expires = None if self.expires == inf else self.expires
        said = [self.key, self.value, self.action, self.reason, expires, self.by]
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False)

    def line(self) -> str:
        """All of it, without the line end."""
        return f"{self.version} {self.made} {self.said()}"


def parse(line: str) -> Record:
    """A record from its line; raises ValueError for whatever we would not have written."""
    version, made, said = line.split(" ", 2)
    try:
        found = json.loads(said)
    except RecursionError:
        raise ValueError("lists within lists") from None
    if not isinstance(found, list) or len(found) != 6:
        raise ValueError("not six values")
    key, value, action, reason, expires, by = found
    if not all(isinstance(text, str) for text in (key, value, action, reason, by)):
        raise ValueError("not a text")
    if expires is not None and not isinstance(expires, int | float):
        raise ValueError("not a time")
    # Many entries have these in common: a list of a hundred thousand takes a fifth less memory.
    key, action, reason, by = map(intern, (key, action, reason, by))
    record = Record(key, value, action, reason, inf if expires is None else float(expires), by)
    for problem in _problems(record):
        raise ValueError(problem)
    return record._replace(made=_number(made), version=_number(version))


def given(record: Record, folder: Folder) -> Record:
    """What an operator gave, folded as what strangers send is; raises ValueError with what would be right."""
    for problem in _problems(record):
        raise ValueError(problem)
    written = AccessEntry(block=record.key, value=record.value)
    for problem in access_problems(written, folder):
        raise ValueError(problem)
    if record.key == "client_network":
        return record._replace(value=str(network(record.value)))
    return record._replace(value=folder.key(record.key, record.value))


def _problems(record: Record) -> Iterator[str]:
    if record.key not in KEYS:
        yield f"{record.key!r} is none of the keys {', '.join(KEYS)}"
    if record.action not in ("block", "allow", ""):
        yield f"{record.action!r} is neither block nor allow"
    for name, text, most in (
        ("value", record.value, LONGEST_VALUE),
        ("reason", record.reason, LONGEST_REASON),
        ("name of who gave it", record.by, LONGEST_BY),
    ):
        if not text.isprintable() or len(text) > most:
            yield f"the {name} is a text of one line, of up to {most} characters"
    if not record.value:
        yield "an empty value would match nothing"
    if not record.reason.isascii():
        yield "the reason is a text in ASCII: it stands in an SMTP reply"
    if record.expires != inf and not (isfinite(record.expires) and 0 <= record.expires < _LATEST):
        yield "the end is no moment before the year 10000"
    if record.key == "client_network":
        try:
            network(record.value)
        except ValueError as error:
            yield str(error)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 17):
        raise ValueError("not a number")
    return int(text)
