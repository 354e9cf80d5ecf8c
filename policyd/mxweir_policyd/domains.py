"""The relay domains of a running daemon: the tables on this host, and what keeps them current."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from mxweir.config import Config
from mxweir.domains.match import Match, State
from mxweir.domains.reader import POSTGRES, RECORDS, TableReader
from mxweir.events import Event, Observer, Trouble
from mxweir.metrics import Metrics
from mxweir.service import SettingError
from mxweir.threads import in_thread
from mxweir_policyd.pipeline import Domains
from mxweir_policyd.postfix.kept import KeptTables
from mxweir_policyd.postfix.report import Settings
from mxweir_policyd.refresh import DomainsFile
from mxweir_policyd.relaydomains.index import Index
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.report import Following
from mxweir_policyd.relaydomains.tablefile import ReplicaError

if TYPE_CHECKING:
    from mxweir_policyd.relaydomains.postgres import PostgresDomains

_FIRST_LOAD = 60.0
"""Seconds to wait for the first domains before answering without."""

_AGAIN_AFTER = 60.0
"""Seconds until a table that could not be taken is looked at again."""

_OUTCOMES = ("ours", "unknown", "remembered", "late", "away", "busy", "standby")


class RelayDomains:
    """What the daemon has of relay domains; raises ServiceError when the tables cannot be opened."""

    def __init__(self, config: Config, observe: Observer, metrics: Metrics) -> None:
        self._config = config
        self._observe = observe
        self._replica = Replica(config.state_dir, mend=True)
        self._replica.pending = True
        self._file = DomainsFile(config.domains.file, config.domains.max_shrink)
        self._loading = asyncio.Lock()
        self._loads = 0
        self._again = 0.0
        self._postgres = following(config, self._replica, observe, metrics)
        self._told_off = False
        self.changed: Callable[[bool], None] = lambda _: None
        """Is called when another table is in place, no source is waited for any more, PostgreSQL changed."""
        if self._postgres is not None:
            self._postgres.heard = lambda: self.changed(self._replica.pending)
        self._kept = KeptTables(_postfix_tables(config), observe)
        self._gauges(metrics)

    @property
    def table(self) -> Domains:
        """What the checks ask."""
        return self._replica if self._postgres is None else self._postgres.index

    @property
    def pending(self) -> bool:
        """Whether a source has still to say what it has since the start."""
        return self._replica.pending

    @property
    def hopeless(self) -> bool:
        """Whether the follower tries in vain to connect to PostgreSQL: nobody else need try."""
        return self._postgres is not None and self._postgres.hopeless

    def confirm(self, domain: str, resume: Callable[[Match], None]) -> None:
        """Have `resume` called with whether PostgreSQL has a folded domain that is unknown here."""
        if self._postgres is None:
            resume(Match(State.FAILED))
        else:
            self._postgres.confirm(domain, resume)

    async def first_load(self) -> None:
        """Without any domain the relay check would be off; with those of last time, answering comes first."""
        if aside := self._replica.put_aside:
            self._observe(Trouble("domain table damaged", f"kept as {aside}; a new one was begun", "error"))
        if self._replica.count() == 0:
            await asyncio.wait([asyncio.ensure_future(self._load())], timeout=_FIRST_LOAD)

    def say_started(self) -> None:
        """Tell what an operator should know about the tables at a start."""
        self._tell_off()
        if self._replica.unsure:
            hint = "import again what was given by command, or say: mxweir domains verify --accept"
            self._observe(
                Trouble("domain table in doubt", f"it was damaged; what it lacks gets 450 until you {hint}")
            )

    def works(self) -> Iterable[Callable[[], Coroutine[None, None, None]]]:
        """What goes on in the background, each for ever."""
        yield self._watch_file
        yield self._kept.run
        if self._postgres is not None:
            yield self._postgres.follow

    def asking(self) -> Iterable[Callable[[], Coroutine[None, None, None]]]:
        """What `confirm` needs in the background, for ever."""
        if self._postgres is not None:
            yield self._postgres.ask

    def tick(self) -> None:
        """Call it every second or so."""
        if self._postgres is None:
            self._replica.tick()
        else:
            self._postgres.tick()
            self._tell_off()

    async def take(self, config: Config) -> None:
        """Take a new configuration."""
        self._config = config
        if self._postgres is not None and config.postgres is not None:
            self._postgres.reconfigure(config)
        self._kept.renew(_postfix_tables(config))
        self._file = DomainsFile(config.domains.file, config.domains.max_shrink)
        await self._load()

    def describe(self) -> str:
        """In which state the replica of PostgreSQL's table is, for people; "" where there is none."""
        return "" if self._postgres is None else self._postgres.describe()

    def close(self) -> None:
        """Give the tables back, but not from under a thread that loads."""
        if not self._loading.locked():
            self._replica.close()
            if self._postgres is not None:
                self._postgres.close()

    async def _watch_file(self) -> None:
        while True:
            if self._replica.displaced() and monotonic() >= self._again:
                await self._move()
            if self._file.changed():
                await self._load()
            await asyncio.sleep(1.0)

    async def _load(self) -> None:
        """In a thread: a large file takes seconds, and questions are answered meanwhile.

        What the table lacks may stand in the file, so it is not refused for good until then.
        One at a time, or a slow load of a former file could come out on top of a newer one.
        """
        events: list[Event] = []
        self._loads += 1
        if self._replica.count():  # an empty one refuses nobody
            self._pend(True)
        async with self._loading:
            try:
                await self._complete(events)
                await in_thread(partial(self._file.load, self._replica, events.append))
            finally:
                self._loads -= 1
                if not self._loads:
                    self._pend(False)  # also where it failed: what it has is what counts
        for event in events:
            self._observe(event)

    async def _complete(self, events: list[Event]) -> None:
        """Before anybody is refused by the flags."""
        try:
            if await in_thread(self._replica.complete):
                events.append(Trouble("domain table repaired", "its flags were damaged", "error"))
        except ReplicaError as error:
            events.append(Trouble("domain table not completed", f"{error}; lookups are slower"))

    def _pend(self, pending: bool) -> None:
        self._replica.pending = pending
        self.changed(pending)

    async def _move(self) -> None:
        """Go on with the table that is where commands and others find it, once it has the file's domains."""
        events: list[Event] = []
        self._again = monotonic() + _AGAIN_AFTER
        why = "the domains file could not be loaded into it"
        async with self._loading:
            try:
                successor = await in_thread(self._replica.successor)
                if await in_thread(partial(self._file.load, successor, events.append)):
                    if self._replica.succeed(successor):
                        self.changed(self._replica.pending)
                        events.append(
                            Trouble("domain table replaced", "taken, with what the domains file has")
                        )
                    self._again = 0.0
                    why = ""
                else:
                    successor.close()
            except (ReplicaError, OSError) as error:
                why = str(error)
        if why:
            what = f"{why}; tried again in {_AGAIN_AFTER:g} s, and the former table is asked"
            events.append(Trouble("domain table not replaced", what, "error"))
        for event in events:
            self._observe(event)

    def _tell_off(self) -> None:
        off = self._replica.count() == 0 and (self._postgres is None or self._postgres.index.empty())
        if off and not self._told_off:
            where = "PostgreSQL has none" if self._postgres else f"write all into {self._config.domains.file}"
            hint = f"no relay domains are known; {where}, or run: mxweir domains import FILE"
            self._observe(Trouble("relay check is off", hint))
        self._told_off = off

    def _gauges(self, metrics: Metrics) -> None:
        postgres = self._postgres
        count = self._replica.count if postgres is None else postgres.index.count
        metrics.gauge("mxweir_relay_domains", "Domains in the replica.", [], lambda: [((), count())])
        show_pending(metrics, self._replica)
        kept = self._kept
        metrics.gauge(
            "mxweir_postfix_tables_kept",
            "1 while the tables of Postfix's own agree with ours.",
            [],
            lambda: [((), float(kept.agree))] if kept.wanted else [],
        )
        for name, text, read in _GAUGES:
            metrics.gauge(name, text, [], lambda read=read: [((), read(postgres))] if postgres else [])  # type: ignore[misc]
        metrics.gauge(
            "mxweir_relay_follower",
            "What the process is at that follows PostgreSQL.",
            ["state"],
            lambda: [((str(each),), float(postgres.state is each)) for each in Following] if postgres else [],
        )


_GAUGES: tuple[tuple[str, str, Callable[["PostgresDomains"], float]], ...] = (
    (
        "mxweir_relay_replica_age_seconds",
        "Since the replica was known to have all that PostgreSQL has.",
        lambda postgres: postgres.age(),
    ),
    (
        "mxweir_relay_replica_lag_seconds",
        "How long the last change waited until it was in force here.",
        lambda postgres: postgres.lag,
    ),
    (
        "mxweir_relay_replica_held",
        "Domains that are kept because too many would go at once.",
        lambda postgres: float(postgres.index.progress.held),
    ),
    (
        "mxweir_relay_replica_frozen",
        "1 while the replica is pinned by hand.",
        lambda postgres: float(postgres.index.frozen),
    ),
)


def following(
    config: Config, replica: Replica, observe: Observer, metrics: Metrics
) -> "PostgresDomains | None":
    """What a process that answers has because of [postgres]; None without it. Raises ServiceError."""
    confirmations = metrics.counter(
        "mxweir_relay_confirmations", "Domains unknown here, by what PostgreSQL said.", ["outcome"]
    )
    if config.postgres is None:
        return None
    confirmations.values.update(dict.fromkeys(((outcome,) for outcome in _OUTCOMES), 0.0))
    return _postgres()(config, replica, observe, confirmations.add)


def show_pending(metrics: Metrics, replica: Replica) -> None:
    """Show for how long what the table lacks may be ours all the same."""
    metrics.gauge(
        "mxweir_relay_domains_pending",
        "1 from a start, and while the domains file is read, until it was loaded or could not be.",
        [],
        lambda: [((), float(replica.pending))],
    )


def _postfix_tables(config: Config) -> Settings | None:
    directory = config.domains.postfix_lmdb
    if directory is None:
        return None
    return Settings(str(config.state_dir), str(directory), config.postgres is not None)


def reading(config: Config, replica: Replica) -> Domains:
    """What the checks ask where no daemon runs: the tables as the last one left them."""
    if config.postgres is None:
        return replica
    return Index(replica, TableReader(config.state_dir / POSTGRES, RECORDS))


def _postgres() -> "type[PostgresDomains]":
    """Only here: a daemon without [postgres] needs no psycopg and does not carry it."""
    with contextlib.suppress(ModuleNotFoundError):
        from mxweir_policyd.relaydomains.postgres import PostgresDomains  # noqa: PLC0415

        return PostgresDomains
    raise SettingError("[postgres] needs psycopg, which is not installed: pip install 'mxweir[postgres]'")
