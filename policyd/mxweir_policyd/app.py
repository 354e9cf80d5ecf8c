"""The policy daemon on one page: what it is made of, how it starts, reloads and stops."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from time import monotonic

from mxweir import http, service
from mxweir.access import AccessList
from mxweir.clock import system_clock
from mxweir.config import Config, ConfigError, load
from mxweir.events import Decided, Event, Trouble, notice, tell_all, warning
from mxweir.facts import Folder
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir.ratelimit import snapshot
from mxweir.ratelimit.limits import Limits
from mxweir.serving import Listening, new_event_loop
from mxweir.threads import in_thread
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.control import ControlServer, control_endpoint
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.pipeline import Domains, Pipeline
from mxweir_policyd.session import MapSession, PolicySession, Sessions

_STALLED = 10.0
"""Seconds without a turn of the loop before /livez fails."""

_OTHER_FILES = 64
"""File descriptors beside those of connections."""

_FIXED = ("listen", "maps", "socket_mode", "socket_group", "http", "workers", "max_connections", "save_every")


def run(config: Config, path: Path) -> int:
    """Run until SIGTERM; returns the exit status 0. Raises ServiceError when the daemon cannot start."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(PolicyDaemon(config, path).run())
    return 0


def snapshot_path(state_dir: Path) -> Path:
    """Where the counters are kept across a restart."""
    return state_dir / "limits.state"


def build_pipeline(config: Config, domains: Domains) -> Pipeline:
    """The checks of a configuration, with empty counters."""
    keys = config.keys
    folder = Folder(keys.ipv4_prefix, keys.ipv6_prefix, keys.recipient_delimiter)
    limits = Limits(config.limit, folder, config.policyd.max_keys)
    return Pipeline(folder, AccessList(config.access, folder), domains, limits)


class PolicyDaemon:
    """Wires everything; nothing else builds objects that live as long as the daemon."""

    def __init__(self, config: Config, path: Path) -> None:
        self._config = config  # as at the start: what a reload can change, it changes where it is used
        self._drain_time = config.policyd.drain
        self._path = path
        self._clock = system_clock()
        self._log = LogObserver(
            config.log,
            self._clock,
            "policyd",
            later=lambda write: asyncio.get_running_loop().call_soon(write),
        )
        self._metrics = Metrics("policyd")
        self._observe: Callable[[Event], None] = tell_all(
            PolicyMetrics(self._metrics).handlers(), self._log.handlers()
        )
        self._domains = RelayDomains(config, self._observe, self._metrics)
        self._answerer = Answerer(
            build_pipeline(config, self._domains.table),
            self._clock,
            self._observe,
            self._domains.confirm,
            tell_each=Decided in self._log.handlers(),
        )
        self._sessions = Sessions(config.policyd.max_connections, self._answerer)
        self._listening: Listening | None = None
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._not_ready = "starting"
        self._turned = monotonic()

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain and stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        background: list[asyncio.Task[None]] = []
        self._load_counters()
        await self._domains.first_load()
        self._gauges()
        pages = self._config.policyd.http
        stop_http = http.serve("policyd.http", pages, self._metrics, self._live, lambda: self._not_ready)
        try:
            await self._listen()
            background += [
                loop.create_task(self._go_on(work))
                for work in (
                    self._tick,
                    *self._domains.works(),
                    self._reload_when_wanted,
                    self._save_often,
                    self._feed_watchdog,
                )
            ]
            self._say_started()
            await self._stopping.wait()
            await self._drain()
        finally:
            for task in background:
                task.cancel()
            stop_http()
            if self._listening is not None:
                self._listening.close()
            self._save()
            self._domains.close()
            self._observe(notice("stopped"))
            self._log.close()

    # Starting

    def _load_counters(self) -> None:
        path = snapshot_path(self._config.state_dir)
        try:
            count = snapshot.read(path, self._answerer.pipeline.limits, self._clock())
            self._observe(notice("counters loaded", count=count))
        except FileNotFoundError:
            pass
        except (snapshot.SnapshotError, OSError) as error:
            kept = path.with_suffix(".broken")
            self._observe(
                Trouble("counters not loaded", f"{path}: {error}; kept as {kept.name}, counting from zero")
            )
            path.rename(kept)

    async def _listen(self) -> None:
        policyd = self._config.policyd
        self._listening = Listening(["policy", "maps"], policyd.socket_mode, policyd.socket_group)
        service.allow_files(policyd.max_connections + _OTHER_FILES)
        await self._listening.serve("policy", policyd.listen, partial(PolicySession, self._sessions))
        await self._listening.serve("maps", policyd.maps, partial(MapSession, self._sessions))
        control = service.bind(control_endpoint(self._config.state_dir), 0o600)
        server = ControlServer(self._answerer, self._domains.describe, self._observe)
        self._listening.add(control, await server.serve(control.socket))

    def _gauges(self) -> None:
        gauge, sessions = self._metrics.gauge, self._sessions.open
        gauge("mxweir_policy_connections", "Open connections.", [], lambda: [((), len(sessions))])
        gauge(
            "mxweir_limit_keys",
            "Keys that a limit remembers.",
            ["limit"],
            lambda: [((name,), count) for name, count in self._answerer.pipeline.limits.sizes()],
        )

    def _say_started(self) -> None:
        self._not_ready = ""
        gc.freeze()
        policyd = self._config.policyd
        for text in self._config.warnings:
            if not text.startswith("milter."):
                self._observe(warning("configuration warning", why=text))
        self._domains.say_started()
        self._observe(
            notice(
                "started", listen=" ".join(map(str, policyd.listen)), maps=" ".join(map(str, policyd.maps))
            )
        )
        service.notify("READY=1")

    # While it runs

    def _live(self) -> str:
        still = monotonic() - self._turned
        return f"the event loop has not turned for {still:.0f} s" if still > _STALLED else ""

    async def _go_on(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do a work of the background, again and again if it fails: none of them may end unseen."""
        while True:
            try:
                return await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
                self._observe(
                    Trouble("internal error in the background", f"{type(error).__name__}: {error}", "error")
                )
                await asyncio.sleep(1.0)

    async def _tick(self) -> None:
        while True:
            self._turned = monotonic()
            self._answerer.pipeline.limits.tick(self._clock())
            self._domains.tick()
            self._log.tick()
            await asyncio.sleep(1.0)

    async def _feed_watchdog(self) -> None:
        """Says that the loop turns, and nothing about any backend: slow is not dead."""
        if (seconds := service.watchdog_seconds()) is not None:
            while True:
                service.notify("WATCHDOG=1")
                await asyncio.sleep(seconds)

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(self._config.policyd.save_every)
            path = snapshot_path(self._config.state_dir)
            try:
                for wait in snapshot.Writer(path, self._answerer.pipeline.limits, self._clock()).steps():
                    await (asyncio.sleep(0) if wait is None else in_thread(wait))
            except OSError as error:
                self._observe(
                    Trouble("counters not saved", f"{path}: {error.strerror}; the former file stays")
                )

    async def _reload_when_wanted(self) -> None:
        """Take a new configuration whole, or keep the one in force."""
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            service.notify(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1e6)}")
            try:
                config = await in_thread(partial(load, self._path))
            except ConfigError as error:
                for line in error.lines():
                    self._observe(warning("configuration not reloaded", why=line))
                self._observe(Trouble("configuration not reloaded", "the former one stays in force", "error"))
            else:
                await self._take(config)
            finally:
                service.notify("READY=1")

    async def _take(self, config: Config) -> None:
        fixed = [
            f"policyd.{key}"
            for key in _FIXED
            if getattr(config.policyd, key) != getattr(self._config.policyd, key)
        ]
        fixed += [key for key in ("state_dir", "log") if getattr(config, key) != getattr(self._config, key)]
        if (config.postgres is None) != (self._config.postgres is None):
            fixed.append("postgres")
        if fixed:
            self._observe(warning("needs a restart to take effect", keys=" ".join(fixed)))
        self._drain_time = config.policyd.drain
        pipeline = await in_thread(partial(build_pipeline, config, self._domains.table))
        pipeline.adopt(self._answerer.pipeline, self._clock())
        self._answerer.pipeline = pipeline
        await self._domains.take(config)
        self._observe(notice("configuration reloaded", limits=len(config.limit), access=len(config.access)))

    # Stopping

    async def _drain(self) -> None:
        """Take no new connection; let what was half asked be asked and answered; close the rest."""
        self._not_ready = "stopping"
        service.notify("STOPPING=1")
        if self._listening is not None:
            self._listening.close()
        until = monotonic() + self._drain_time
        while self._sessions.open and monotonic() < until:
            await asyncio.sleep(0.05)
            self._sessions.close_idle()

    def _save(self) -> None:
        if self._not_ready == "starting":
            return  # what is on disk may be that of a daemon which serves, and kept us from starting
        path = snapshot_path(self._config.state_dir)
        try:
            snapshot.write(path, self._answerer.pipeline.limits, self._clock())
        except OSError as error:
            self._observe(Trouble("counters not saved", f"{path}: {error.strerror}; the former file stays"))
