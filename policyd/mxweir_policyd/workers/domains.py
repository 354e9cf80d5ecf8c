"""The relay domains as a worker has them: the tables that the parent keeps, mapped into every process."""

import contextlib
from collections.abc import Callable, Iterable

from mxweir.background import Work
from mxweir.config import Config
from mxweir.domains.match import Match, State
from mxweir.events import Observer
from mxweir.metrics import Metrics
from mxweir_policyd.domains import following, show_pending
from mxweir_policyd.pipeline import Domains
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.tablefile import ReplicaError
from mxweir_policyd.workers import messages


class SharedDomains:
    """Asks the tables, and PostgreSQL for what they lack; raises ServiceError when it cannot.

    What is `told` of them is the parent's word: it loads the domains file, and has the follower.
    """

    def __init__(self, config: Config, told: messages.Domains, observe: Observer, metrics: Metrics) -> None:
        self._replica = Replica(config.state_dir)
        self._postgres = following(config, self._replica, observe, metrics)
        self._hear(told)
        show_pending(metrics, self._replica)

    @property
    def table(self) -> Domains:
        """What the checks ask."""
        return self._replica if self._postgres is None else self._postgres.index

    def confirm(self, domain: str, resume: Callable[[Match], None]) -> None:
        """Have `resume` called with whether PostgreSQL has a folded domain that is unknown here."""
        if self._postgres is None:
            resume(Match(State.FAILED))
        else:
            self._postgres.confirm(domain, resume)

    def asking(self) -> Iterable[Work]:
        """What `confirm` needs in the background, for ever."""
        if self._postgres is not None:
            yield self._postgres.ask

    def describe(self) -> str:
        """The parent knows."""
        return ""

    def tick(self) -> None:
        """Call it every second or so."""
        if self._postgres is None:
            self._replica.tick()
        else:
            self._postgres.tick()

    def changed(self, told: messages.Domains) -> None:
        """The parent has loaded the file, put another table in place, or heard of a change in PostgreSQL."""
        self._hear(told)
        if self._replica.displaced():
            # Else what is there is just being replaced once more, and the next word comes.
            with contextlib.suppress(ReplicaError):
                self._replica.reopen()
        if self._postgres is None:
            self._replica.tick()
        else:
            self._postgres.forget()

    def take(self, config: Config) -> None:
        """Take a new configuration."""
        if self._postgres is not None:
            self._postgres.reconfigure(config)

    def _hear(self, told: messages.Domains) -> None:
        self._replica.pending = told.pending
        if self._postgres is not None:
            self._postgres.told_hopeless = told.hopeless

    def close(self) -> None:
        """Give the tables back."""
        self._replica.close()
        if self._postgres is not None:
            self._postgres.close()
