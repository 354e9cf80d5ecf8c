"""Who uses most of each limit that is counted in Redis, as one process has seen it. Pure.

Whatever is asked is counted, also what is refused here without asking: who floods
does so because he is refused. Rows wait until there are many keys, for a question
often comes alone; so a key costs some 0.1 µs. Keys and not the names of the counters
in Redis: who came before has the same object as key, which a dict finds without a look
into it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mxweir.ratelimit.shapes import Counter, Shape
from mxweir.ratelimit.sketch import AT_ONCE, Recent, Summary

PUBLISHED = 100
"""Keys of a limit that a process tells others of."""


class Talkers:
    """One sketch a limit; `now` in seconds. It outlives the configuration."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._recent: dict[bytes, Recent] = {}
        self._waiting: dict[Shape, list[str]] = {}

    def row(self, shape: Shape, keys: Sequence[str]) -> None:
        """Count the questions of a call by their keys, so many for each question."""
        waiting = self._waiting.get(shape)
        if waiting is None:
            waiting = self._waiting[shape] = []
        waiting += keys
        if len(waiting) > AT_ONCE:
            self._count()

    def one(self, counter: Counter, key: str) -> None:
        """Count a question that nobody was asked."""
        self._of(counter.prefix).update((key,))

    def tick(self, now: float) -> None:
        """Call it every second or so."""
        self._count()
        self._now = now
        for prefix, recent in list(self._recent.items()):
            recent.tick(now)
            if recent.empty:  # of a limit that is gone, or of which nobody was asked for long
                del self._recent[prefix]

    def report(self) -> str:
        """What others are told."""
        self._count()
        return json.dumps({prefix.decode(): _told(recent) for prefix, recent in self._recent.items()})

    def _count(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for shape, keys in waiting.items():
            width = len(shape.counters)
            for place, counter in enumerate(shape.counters):
                self._of(counter.prefix).update(keys[place::width])

    def _of(self, prefix: bytes) -> Recent:
        recent = self._recent.get(prefix)
        if recent is None:
            recent = self._recent[prefix] = Recent(self._now)
        return recent


def read_report(text: bytes) -> Mapping[str, Summary]:
    """What a report says, by the counters' prefix; raises ValueError for what is none."""
    found = json.loads(text)
    try:
        return {str(prefix): _summary(told) for prefix, told in found.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"no report: {error}") from None


def _told(recent: Recent) -> list[Any]:
    summary = recent.summary(PUBLISHED)
    return [summary.counts, summary.lost, summary.absent, summary.events]


def _summary(told: Any) -> Summary:
    keys, lost, absent, events = told
    counts = {str(key): int(count) for key, count in keys.items()}
    return Summary(counts, int(lost), int(absent), int(events))
