"""The relay domains of a daemon that has [postgres]: the replica, its follower, and who asks PostgreSQL.

Only a daemon with [postgres] imports this, and with it psycopg.
"""

import asyncio
from collections.abc import Callable
from time import time

from mxweir.config import Config
from mxweir.config.sections import Postgres
from mxweir.domains.match import Match, State
from mxweir.domains.reader import POSTGRES, RECORDS, TableReader
from mxweir.events import Observer
from mxweir_policyd.relaydomains.asking import Asker
from mxweir_policyd.relaydomains.confirm import Condition, Confirmations, Resume, Rules
from mxweir_policyd.relaydomains.index import Index
from mxweir_policyd.relaydomains.keeper import Keeper
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.report import Following, Settings


class PostgresDomains:
    """Everything that a daemon does because of [postgres]; `count` counts the outcome of a confirmation."""

    def __init__(
        self, config: Config, here: Replica, observe: Observer, count: Callable[[str], None]
    ) -> None:
        postgres = _required(config)
        self.index = Index(here, TableReader(config.state_dir / POSTGRES, RECORDS))
        self._confirmations = Confirmations(_rules(config), self._condition, count)
        self._keeper = Keeper(_settings(config), observe, self._heard)
        self._asker = Asker(
            postgres,
            self._confirmations,
            patience(config),
            observe,
            lambda: self.hopeless,
        )
        self.told_hopeless = False
        """What the process that has the follower says of `hopeless`."""
        self.heard: Callable[[], None] = lambda: None
        """Is called when the follower has heard of a change: other processes remember, too."""
        self._renewed = asyncio.Event()

    async def follow(self) -> None:
        """Have a follower, for ever; one process of a host does."""
        await self._keeper.run()

    async def ask(self) -> None:
        """Ask what is to be confirmed, for ever."""
        while True:
            self._renewed.clear()
            asking = asyncio.ensure_future(self._asker.run())
            renewed = asyncio.ensure_future(self._renewed.wait())
            try:
                await asyncio.wait((asking, renewed), return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    asking.result()
            finally:
                renewed.cancel()
                asking.cancel()

    def reconfigure(self, config: Config) -> None:
        """Take new settings; connections are made anew where theirs have changed."""
        postgres = _required(config)
        self._confirmations.rules = _rules(config)
        self._keeper.renew(_settings(config))
        if self._asker.renew(postgres, patience(config)):
            self._renewed.set()

    def confirm(self, domain: str, resume: Resume) -> None:
        """Have `resume` called with whether PostgreSQL has the folded domain; maybe at once."""

        def remembering(match: Match) -> None:
            if match.state is State.OURS:
                self.index.remember(domain)
            resume(match)

        self._asker.ask(domain, remembering)

    def tick(self) -> None:
        """Call it every second or so."""
        if self.index.failed and self._keeper.last.state is Following.FOLLOWING:
            self._keeper.restart()  # which reads all of the file, and puts a damaged one aside
        if self.index.tick():
            self._confirmations.forget()

    def forget(self) -> None:
        """Something has changed in PostgreSQL: what was not ours may be."""
        self.index.tick()
        self._confirmations.forget()

    def describe(self) -> str:
        """In which state the replica is, for people."""
        index, filled = self.index, self.index.progress.filled
        words = [f"replica {self.state}", f"{index.followed()} domains" if filled else "not whole yet"]
        words += [f"{given} given on this host"] if (given := index.count() - index.followed()) else []
        words += [f"last current {self.age():.0f} s ago"] if index.progress.seen else []
        words += ["frozen"] if index.frozen else []
        words += [f"{index.progress.held} losses held"] if index.progress.held else []
        return ", ".join(words)

    def close(self) -> None:
        """Give the replica back."""
        self.index.close()

    def age(self) -> float:
        """Seconds since the replica was known to have all that PostgreSQL has."""
        return max(0.0, time() - self.index.progress.seen)

    @property
    def state(self) -> Following:
        """What the follower is at."""
        return self._keeper.last.state

    @property
    def hopeless(self) -> bool:
        """Whether this host's follower tries in vain to connect."""
        return self.told_hopeless or self.state is Following.AWAY

    @property
    def lag(self) -> float:
        """Seconds that the last change may have waited until it was in force here."""
        return self._keeper.lag

    def _condition(self) -> Condition:
        return Condition(self.age(), self.index.frozen)

    def _heard(self) -> None:
        self.forget()
        self.heard()


def _rules(config: Config) -> Rules:
    domains = config.domains
    return Rules(domains.unknown_for, domains.unconfirmed == "reject", domains.max_age)


def _settings(config: Config) -> Settings:
    return Settings(str(config.state_dir), config.domains.max_shrink, _required(config))


def patience(config: Config) -> float:
    """Seconds that a question waits for PostgreSQL: then the limits are asked, which may wait for Redis."""
    return config.policyd.deadline - (config.redis.timeout if config.redis else 0.0)


def _required(config: Config) -> Postgres:
    if config.postgres is None:
        raise ValueError("there is no [postgres]")
    return config.postgres
