"""Who uses most, in bounded memory: heavy hitters of what strangers send.

**Misra and Gries, with room to put off the work.** A summary of size k counts every
key exactly until it holds `ROOM` · k of them. Then the (k+1)th largest count is
subtracted from all, and what falls to zero is forgotten ("Mergeable Summaries",
Agarwal et al., PODS 2012, §2). Each time, at least k+1 keys lose that much, so all
that was ever subtracted, `lost`, is at most the number of events / (k+1):

    counted  ≤  true number  ≤  counted + lost         lost ≤ events / (k+1)

A key that is not there came at most `lost` times. Whoever sends more than one in k
of all events is always found, however many others send once.

Putting it off makes it cheap: most updates are one call into C that counts a list
of keys, and a flood of new keys pays for a pruning once in thousands.

**Merging.** Each worker publishes its largest, and says how often a key that it
leaves out may have come at most (`Summary.absent`). What is known of a key in all of
them lies between the sum of what was counted and the sum of what could have been.
"""

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from operator import itemgetter
from typing import NamedTuple

SIZE = 1024
"""Keys of a summary that are sure to be told apart: whoever makes a thousandth of all events is seen."""

ROOM = 8
"""How many times as many keys are counted before the least are forgotten; about a megabyte a summary."""

AT_ONCE = 1024
"""Keys that wait to be counted together."""

PERIOD = 600.0
"""Seconds of one of the two periods: what is told is of the last ten to twenty minutes."""


class Summary(NamedTuple):
    """The largest keys of one worker; each came `counts` times, or up to `lost` times more.

    A key that is not among them came at most `absent` times; `events` is how many there were of all.
    """

    counts: dict[str, int]
    lost: int
    absent: int
    events: int


class Talker(NamedTuple):
    """One key that uses much: it came at least so often, and at most so often."""

    key: str
    least: int
    most: int


class Sketch:
    """A summary of one period."""

    __slots__ = ("_counts", "_events", "_size", "_waiting", "lost")

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._counts = Counter[str]()
        self._waiting: list[str] = []
        self._events = 0
        self.lost = 0

    def __len__(self) -> int:
        """Keys held: between two updates never more than `ROOM` times the size, and `AT_ONCE`."""
        return len(self._counts) + len(self._waiting)

    def update(self, keys: Sequence[str]) -> None:
        """Count each of the keys once."""
        waiting = self._waiting
        waiting += keys
        if len(waiting) > AT_ONCE:
            self._count()

    def summary(self, most: int) -> Summary:
        """The `most` largest, as they are to be merged with those of others."""
        self._count()
        first = nlargest(most + 1, self._counts.items(), key=itemgetter(1))
        left_out = first[most][1] if len(first) > most else 0
        return Summary(dict(first[:most]), self.lost, self.lost + left_out, self._events)

    def _count(self) -> None:
        """Count what waits: many keys in one call cost a tenth of as many calls."""
        self._counts.update(self._waiting)
        self._events += len(self._waiting)
        self._waiting.clear()
        if len(self._counts) > self._size * ROOM:
            self._prune()

    def _prune(self) -> None:
        counts = self._counts
        least = sorted(counts.values())[-self._size - 1]
        self.lost += least
        self._counts = Counter({key: count - least for key, count in counts.items() if count > least})


class Recent:
    """A sliding pair of periods: what came in the one that runs, and in the one before.

    `now` is in seconds; periods begin at multiples of their length, so that those
    of hosts whose clocks agree are the same.
    """

    __slots__ = ("_old", "_period", "_size", "_turn", "_young", "update")

    def __init__(self, now: float, period: float = PERIOD, size: int = SIZE) -> None:
        self._period = period
        self._size = size
        self._turn = now // period
        self._old = Sketch(size)
        self._young = Sketch(size)
        self.update = self._young.update
        """Count each of the keys once; in the path of every question, so no call leads to it."""

    def tick(self, now: float) -> None:
        """Begin a new period when it is time; call it every second or so, and hold no `update` beyond it."""
        turn = now // self._period
        if turn == self._turn:
            return
        # After a jump of the clock, or a long sleep, neither of the two is recent.
        self._old = self._young if turn == self._turn + 1 else Sketch(self._size)
        self._young = Sketch(self._size)
        self._turn = turn
        self.update = self._young.update

    @property
    def empty(self) -> bool:
        """Whether nothing came in either period."""
        return not len(self._old) and not len(self._young)

    def summary(self, most: int) -> Summary:
        """The `most` largest of both periods together."""
        return _narrowed(merged([self._old.summary(most), self._young.summary(most)]), most)


class Merged(NamedTuple):
    """What several summaries say together: every key that one of them has, the largest first.

    A key that none of them has came at most `absent` times; `events` is how many there were of all.
    """

    talkers: list[Talker]
    absent: int
    events: int


def merged(summaries: Sequence[Summary]) -> Merged:
    """What all workers of all hosts know."""
    absent = sum(summary.absent for summary in summaries)
    least = Counter[str]()
    more = Counter[str]()
    for summary in summaries:
        least.update(summary.counts)
        # A key that is here may have lost `lost`; one that is not, may have come `absent` times.
        more.update(dict.fromkeys(summary.counts, summary.lost - summary.absent))
    talkers = [Talker(key, count, count + absent + more[key]) for key, count in least.items()]
    talkers.sort(key=lambda talker: (-talker.least, talker.key))
    return Merged(talkers, absent, sum(summary.events for summary in summaries))


def _narrowed(all_of: Merged, most: int) -> Summary:
    """The largest of what was merged, as a summary of its own."""
    kept, dropped = all_of.talkers[:most], all_of.talkers[most:]
    lost = max((talker.most - talker.least for talker in kept), default=0)
    absent = max([all_of.absent, *(talker.most for talker in dropped)])
    return Summary({talker.key: talker.least for talker in kept}, lost, absent, all_of.events)
