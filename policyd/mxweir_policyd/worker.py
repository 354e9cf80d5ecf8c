"""What answers Postfix: the checks in force, the connections, what the limits count in the process.

There is one of it in the policy daemon itself or, with `policyd.workers` above 1,
one in each of its worker processes (`mxweir_policyd.workers`).
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, cast

from mxweir import service
from mxweir.access import AccessList, Index
from mxweir.background import Work
from mxweir.clock import Clock
from mxweir.config import Config
from mxweir.config.sections import Redis
from mxweir.control import Control
from mxweir.domains.match import Match
from mxweir.events import Observer
from mxweir.facts import Folder
from mxweir.metrics import Metrics
from mxweir.ratelimit.bulletin import Bulletin
from mxweir.ratelimit.control import LimitsControl
from mxweir.ratelimit.kept import Kept
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shared import Shared
from mxweir.ratelimit.talkers import Talkers
from mxweir.redis.servers import Servers, add_gauge, connect
from mxweir.serving import Listening
from mxweir.threads import in_thread
from mxweir_policyd.accesslist.commands import Commands
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.control import Explaining
from mxweir_policyd.pipeline import Domains, Pipeline
from mxweir_policyd.session import MapSession, PolicySession, Sessions
from mxweir_policyd.shared.answerer import SharedAnswerer
from mxweir_policyd.shared.pipeline import SharedPipeline

_OTHER_FILES = 64
"""File descriptors beside those of connections."""


class AskedDomains(Protocol):
    """The relay domains, as whoever answers Postfix needs them."""

    @property
    def table(self) -> Domains:
        """What the checks ask."""

    def confirm(self, domain: str, resume: Callable[[Match], None]) -> None:
        """Have `resume` called with whether PostgreSQL has a folded domain that is unknown here."""

    def asking(self) -> Iterable[Work]:
        """What `confirm` needs in the background."""

    def describe(self) -> str:
        """In which state they are, for people."""


def snapshot_path(state_dir: Path) -> Path:
    """Where the counters are kept across a restart."""
    return state_dir / "limits.state"


def build_pipeline(
    config: Config,
    domains: Domains,
    share: Callable[[Limits], Shared] | None = None,
    commands: Index | None = None,
) -> Pipeline:
    """The checks of a configuration, with empty counters; with `share`, limits are counted in Redis.

    `commands` are the access entries that operators made by command.
    """
    keys = config.keys
    folder = Folder(keys.ipv4_prefix, keys.ipv6_prefix, keys.recipient_delimiter)
    access = AccessList(config.access, folder, commands)
    rules = [rule for rule in config.limit if not rule.by_content]
    factor = config.redis.degraded_factor if config.redis else 1.0
    limits = Limits(rules, folder, config.policyd.max_keys, factor)
    if share is None:
        return Pipeline(folder, access, domains, limits)
    return SharedPipeline(folder, access, domains, share(limits))


class Worker:
    """Answers Postfix in this process; with `tell_each`, observers are told the facts of each question."""

    def __init__(
        self,
        config: Config,
        domains: AskedDomains,
        clock: Clock,
        observe: Observer,
        metrics: Metrics,
        *,
        tell_each: bool,
    ) -> None:
        self._config = config
        self._domains = domains
        self._clock = clock
        self._observe = observe
        self._servers = connect(config.redis, observe) if config.redis else None
        self._talkers = Talkers(clock())
        self._commands = Commands(config, self._servers, clock, observe, metrics)
        kind = SharedAnswerer if self._servers else Answerer
        self._answerer = kind(self._pipeline(config), clock, observe, domains.confirm, tell_each=tell_each)
        self._commands.first_or_last = self._write_lane
        path = snapshot_path(config.state_dir)
        self._kept = Kept(path, lambda: self._answerer.pipeline.limits, clock, observe)
        explaining = Explaining(self._answerer, domains.describe, observe)
        limits = LimitsControl(self._in_force, clock)
        answers = {"explain": explaining.answer, "limits": limits.answer, "access": self._commands.say}
        self._control = Control(answers, observe)
        self.sessions = Sessions(config.policyd.max_connections, self._answerer)
        self._gauges(metrics)

    async def start(self) -> None:
        """Go on with the counters of a former process, and be ready for many connections."""
        self.allow_files()
        await self.prepare()
        self._kept.load()

    async def prepare(self) -> None:
        """Connect to Redis, if there is one, and know what operators said; no failure of either stops us."""
        self._commands.load()
        if self._servers:
            await self._servers.start()
            await self._commands.first_news()

    def allow_files(self) -> None:
        """Let this process have as many connections as are allowed."""
        service.allow_files(self._config.policyd.max_connections + _OTHER_FILES)

    async def listen(self, listening: Listening) -> None:
        """Serve Postfix. Raises ServiceError in one line."""
        policyd = self._config.policyd
        await listening.serve("policy", policyd.listen, self.policy_session)
        await listening.serve("maps", policyd.maps, self.map_session)

    def policy_session(self) -> PolicySession:
        """What serves a new connection that asks for decisions."""
        return PolicySession(self.sessions)

    def map_session(self) -> MapSession:
        """What serves a new connection that looks up in maps."""
        return MapSession(self.sessions)

    async def answer(self, question: bytes) -> dict[str, Any]:
        """Answer a line that came in at the control socket."""
        return await self._control.answer(question)

    def works(self) -> Iterator[Work]:
        """What goes on in the background, each for ever."""
        yield partial(self._kept.save_often, self._config.policyd.save_every)
        yield from self.asking()

    def asking(self) -> Iterator[Work]:
        """What answering alone needs of that."""
        yield from self._domains.asking()
        yield from self._commands.works()
        if self._servers and self._config.redis:
            yield Bulletin(self._servers, self._config.redis.prefix, self._talkers, self._forget).run

    def tick(self) -> None:
        """Call it every second or so."""
        self._answerer.tell_untold()
        self._answerer.pipeline.tick(self._clock())
        self._commands.tick()

    def stalled(self) -> str:
        """Which loop beside the daemon's own does not turn: there is none."""
        return ""

    def not_ready(self) -> str:
        """Why nobody would answer, though the daemon has started: there is no such reason."""
        return ""

    async def take(self, config: Config) -> None:
        """Answer by a new configuration; what the limits have counted goes on."""
        pipeline = await in_thread(partial(self._pipeline, config))
        pipeline.adopt(self._answerer.pipeline, self._clock())
        self._answerer.pipeline = pipeline

    async def drain(self, seconds: float) -> None:
        """Let what was half asked be asked and answered, for as long as that; close the rest."""
        until = monotonic() + seconds
        while self.sessions.open and monotonic() < until:
            await asyncio.sleep(0.05)
            self.sessions.close_idle()
        self._commands.close()

    async def end(self, served: bool) -> None:
        """Keep the counters for the next process.

        Unless this one never `served`: then what is on disk may be that of a daemon
        which serves, and kept us from starting.
        """
        if self._servers:
            self._servers.close()
        if served:
            self._kept.save()

    def _pipeline(self, config: Config) -> Pipeline:
        share = self._share if self._servers else None
        return build_pipeline(config, self._domains.table, share, self._commands.index)

    def _in_force(self) -> tuple[Limits, Folder]:
        return self._answerer.pipeline.limits, self._answerer.pipeline.folder

    def _write_lane(self) -> None:
        self._answerer.pipeline.write_lane()

    def _share(self, limits: Limits) -> Shared:
        redis, servers = cast("Redis", self._config.redis), cast("Servers", self._servers)
        return Shared(
            limits,
            servers,
            redis.prefix,
            self._clock,
            self._observe,
            redis.timeout,
            talkers=self._talkers,
        )

    def _forget(self, limit: str, key: str) -> None:
        """An operator has reset a counter in Redis."""
        if isinstance(pipeline := self._answerer.pipeline, SharedPipeline):
            pipeline.shared.forget(limit, key)

    def _gauges(self, metrics: Metrics) -> None:
        sessions, gauge = self.sessions.open, metrics.gauge
        gauge(
            "mxweir_policy_connections", "Open connections.", [], lambda: [((), len(sessions))], summed=True
        )
        gauge(
            "mxweir_limit_keys",
            "Keys that a limit remembers.",
            ["limit"],
            lambda: [((name,), count) for name, count in self._answerer.pipeline.limits.sizes()],
            summed=True,
        )
        add_gauge(metrics, lambda: self._servers)
