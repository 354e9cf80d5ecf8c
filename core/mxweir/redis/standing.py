"""Whether a server is at our service, told when that changes and not each time it is felt."""

from collections import Counter

from mxweir.clock import Clock
from mxweir.events import Observer, Trouble, notice
from mxweir.redis.errors import Kind, RedisError


class Standing:
    """Of one server: tells the begin of an outage, and at its end how long it was and what it cost."""

    def __init__(self, observe: Observer, clock: Clock) -> None:
        self._observe = observe
        self._clock = clock
        self._since = clock()
        self._lost = Counter[Kind]()
        self.good: bool | None = None
        """None: never yet, and no trouble either."""

    def failed(self, kind: Kind) -> None:
        """A call had no answer."""
        self._lost[kind] += 1

    def bad(self, at: str, error: RedisError) -> None:
        """It is not, or no longer; told unless it was."""
        if self.good is not False:
            self.good, self._since = False, self._clock()
            self._observe(Trouble("Redis not available", f"{at}: {error}"))

    def well(self, at: str) -> None:
        """It is, or again; told unless it was."""
        if self.good:
            return
        first, self.good = self.good is None, True
        lost, self._lost = self._lost, Counter()
        if first:
            self._observe(notice("Redis connected", at=at))
        else:
            seconds = round(self._clock() - self._since, 1)
            calls = " ".join(f"{kind}={count}" for kind, count in sorted(lost.items()))
            self._observe(notice("Redis available again", at=at, after=seconds, unanswered=calls or "0"))
