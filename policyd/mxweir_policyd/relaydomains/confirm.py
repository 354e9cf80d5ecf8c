"""Confirm with PostgreSQL that a domain which this host does not know is not ours; the rules, without I/O.

    PostgreSQL has it                     it is ours; 450 while the replica is frozen without it
    PostgreSQL, a primary, has it not     it is not ours, and that is remembered for a while
    not told in time, or not by a primary 450; or 550 by `unconfirmed = "reject"`, while the replica is young

The same domain is asked for once, however many want to know; domains that wait
are bounded, and so is the time that each of them waits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mxweir.domains.match import NOT_OURS, Match, State

Resume = Callable[[Match], None]
"""What goes on with the answer: OURS, NOT_OURS or FAILED."""

MOST_WAITING = 2000
"""Domains that wait for PostgreSQL at most; more are not confirmable."""

_MOST_REMEMBERED = 65_536


class Rules(NamedTuple):
    """The settings; durations in seconds."""

    unknown_for: float = 10.0
    reject: bool = False
    """Whether what is not confirmable is refused for good, while the replica is younger than `max_age`."""
    max_age: float = 7 * 86400.0


class Condition(NamedTuple):
    """That of the replica: seconds since it had all that PostgreSQL has, and whether it is pinned."""

    age: float
    frozen: bool


@dataclass(slots=True)
class _Waiting:
    until: float
    resume: list[Resume] = field(default_factory=list)


class Confirmations:
    """Who waits for what, and what is remembered; times in seconds of one clock that only goes forward."""

    def __init__(self, rules: Rules, replica: Callable[[], Condition], count: Callable[[str], None]) -> None:
        self.rules = rules
        self._replica = replica
        self._count = count
        self._waiting: dict[str, _Waiting] = {}
        self._unknown: dict[str, float] = {}

    def wants(self, domain: str, resume: Resume, now: float, until: float, away: bool) -> bool:
        """Somebody wants to know, and waits no longer than `until`; True if PostgreSQL is to be asked.

        Otherwise it was answered at once, or is being asked for already. `away`
        says that PostgreSQL cannot be asked now. Who asks later is answered with the first.
        """
        if now < self._unknown.get(domain, 0.0):
            self._count("remembered")
            resume(NOT_OURS)
        elif (waiting := self._waiting.get(domain)) is not None:
            waiting.resume.append(resume)
        elif away or len(self._waiting) >= MOST_WAITING:
            self._count("away" if away else "busy")
            resume(self._unconfirmed())
        else:
            self._waiting[domain] = _Waiting(until, [resume])
            return True
        return False

    def answered(self, domain: str, match: Match, primary: bool, now: float) -> None:
        """PostgreSQL has said whether it has the domain."""
        if match.state is State.OURS:
            frozen = self._replica().frozen
            self._settle(domain, "ours", Match(State.FAILED) if frozen else match)
        elif not primary:
            self._settle(domain, "standby", self._unconfirmed())
        else:
            self._remember(domain, now)
            self._settle(domain, "unknown", NOT_OURS)

    def late(self, now: float) -> None:
        """Answer whoever has waited as long as it may."""
        while (first := self.next_late) is not None and first <= now:
            self._settle(next(iter(self._waiting)), "late", self._unconfirmed())

    def away(self) -> None:
        """PostgreSQL cannot be asked: nobody needs to wait any more."""
        for domain in list(self._waiting):
            self._settle(domain, "away", self._unconfirmed())

    def waits(self, domain: str) -> bool:
        """Whether anybody still wants to know."""
        return domain in self._waiting

    @property
    def next_late(self) -> float | None:
        """When the first of those who wait has waited long enough; None if nobody waits."""
        return next((waiting.until for waiting in self._waiting.values()), None)

    def forget(self) -> None:
        """Something has changed in PostgreSQL: what was not ours may be."""
        self._unknown.clear()

    def _unconfirmed(self) -> Match:
        rules = self.rules
        if rules.reject and self._replica().age < rules.max_age:
            return NOT_OURS
        return Match(State.FAILED)

    def _remember(self, domain: str, now: float) -> None:
        if len(self._unknown) >= _MOST_REMEMBERED:
            self._unknown.clear()
        if self.rules.unknown_for:
            self._unknown[domain] = now + self.rules.unknown_for

    def _settle(self, domain: str, outcome: str, match: Match) -> None:
        self._count(outcome)
        for resume in self._waiting.pop(domain).resume:
            resume(match)
