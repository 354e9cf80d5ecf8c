"""The answer of a host that follows PostgreSQL: its replica, and what is given on this host.

The nearest record of both decides, and of two for the same name PostgreSQL's; a domain that
neither knows may be one that was added a moment ago, so it is not simply "not
ours": whoever asks has PostgreSQL confirm it (`confirm`).
"""

from mxweir.domains.match import NOT_OURS, Match, State, exact, nearest
from mxweir.domains.reader import FROZEN, PROGRESS, TableReader
from mxweir_policyd.relaydomains.progress import Progress
from mxweir_policyd.relaydomains.replica import Replica

_REMEMBERED = 16_384


class Index:
    """Both tables, as the policy daemon asks them."""

    def __init__(self, here: Replica, postgres: TableReader) -> None:
        self._here = here
        self._postgres = postgres
        self.ours: set[str] = set()
        """Those that were ours lately; always this same set, emptied at each `tick`."""
        self._version = 0
        self.progress = Progress()
        """How far the replica had come at the last `tick`."""
        self.frozen = False
        """Whether the replica was pinned at the last `tick`."""
        self.tick()

    def state(self, domain: str) -> State:
        """Is the folded domain ours? Those that are may be remembered until the next `tick` or `forget`."""
        if domain in self.ours:
            return State.OURS
        state = State.OURS if self._postgres.knows(domain) else self.find(domain).state
        if state is State.OURS:
            self.remember(domain)
        return state

    def find(self, domain: str) -> Match:
        """Is the folded domain ours, by which record? UNCONFIRMED where only PostgreSQL can tell."""
        match = self._postgres.find(domain)
        here = NOT_OURS if exact(match, domain) else self._here.find(domain)
        if match.raw and nearest(match, here) is match:
            if match.state is State.OURS:
                return match
            return here if here.state is State.FAILED else Match(State.UNCONFIRMED, match.raw)
        if here.state in (State.OURS, State.FAILED):
            return here
        return here if here.state is State.OFF and self.empty() else Match(State.UNCONFIRMED)

    def remember(self, domain: str) -> None:
        """The domain is ours; so it stays until the next `tick` or `forget`."""
        if len(self.ours) < _REMEMBERED:
            self.ours.add(domain)

    def forget(self) -> None:
        """Something has changed: remember nothing."""
        self.ours.clear()

    def tick(self) -> bool:
        """Call it every second or so: looks whether the replica was changed or replaced; says if it was."""
        self.ours.clear()
        self._here.tick()
        self._postgres.tick()
        version = self._postgres.version()
        changed, self._version = version != self._version, version
        if changed:
            self.progress = Progress.decode(self._postgres.meta(PROGRESS))
            self.frozen = self._postgres.meta(FROZEN) is not None
        return changed

    def empty(self) -> bool:
        """Whether the replica is whole and has no domain."""
        return self.progress.filled and not self._postgres.count()

    @property
    def failed(self) -> bool:
        """Whether the replica is there and could not be read."""
        return self._postgres.there and self._postgres.failed

    def close(self) -> None:
        """Give the replica back; the table of this host is somebody else's."""
        self._postgres.close()

    def followed(self) -> int:
        """Domains in the replica."""
        return self._postgres.count()

    def count(self) -> int:
        """Domains in the replica and of this host; one that is in both counts twice."""
        return self._here.count() + self.followed()
