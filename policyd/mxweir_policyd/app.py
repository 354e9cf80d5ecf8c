"""The policy daemon on one page: what it is made of, how it starts, reloads and stops."""

import asyncio
import gc
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

from mxweir import http, service
from mxweir.background import go_on
from mxweir.clock import system_clock
from mxweir.config import Config, ConfigError, load
from mxweir.control import ControlServer, control_endpoint
from mxweir.events import Decided, Event, Trouble, notice, tell_all, warning
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir.serving import Listening, new_event_loop
from mxweir.threads import in_thread
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.reloading import in_force
from mxweir_policyd.worker import Worker
from mxweir_policyd.workers.pool import Workers

_STALLED = 10.0
"""Seconds without a turn of the loop before /livez fails."""


def run(config: Config, path: Path) -> int:
    """Run until SIGTERM; returns the exit status 0. Raises ServiceError when the daemon cannot start."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(PolicyDaemon(config, path).run())
    return 0


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
        self._worker = self._workers() if config.policyd.workers > 1 else self._own_worker()
        self._listening: Listening | None = None
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._not_ready = "starting"
        self._turned = monotonic()

    def _own_worker(self) -> Worker | Workers:
        """What answers Postfix in this very process."""
        return Worker(
            self._config,
            self._domains,
            self._clock,
            self._observe,
            self._metrics,
            tell_each=Decided in self._log.handlers(),
        )

    def _workers(self) -> Worker | Workers:
        """What answers Postfix in processes of their own, as one service."""
        return Workers(self._config, self._domains, self._observe, self._log, self._metrics)

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, drain and stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        background: list[asyncio.Task[None]] = []
        await self._domains.first_load()
        pages = self._config.policyd.http
        stop_http = http.serve("policyd.http", pages, self._metrics, self._live, self._ready)
        try:
            # Before any process is started, so that none inherits them.
            policyd = self._config.policyd
            self._listening = Listening(["policy", "maps"], policyd.socket_mode, policyd.socket_group)
            await self._worker.start()
            await self._listen(self._listening)
            background += [
                loop.create_task(go_on(work, self._observe))
                for work in (
                    self._tick,
                    *self._domains.works(),
                    *self._worker.works(),
                    self._reload_when_wanted,
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
            await self._worker.end(served=self._not_ready != "starting")
            self._domains.close()
            self._observe(notice("stopped"))
            self._log.close()

    # Starting

    async def _listen(self, listening: Listening) -> None:
        await self._worker.listen(listening)
        control = service.bind(control_endpoint(self._config.state_dir, "policyd"), 0o600)
        server = ControlServer(self._worker.answer, self._observe)
        listening.add(control, await server.serve(control.socket))

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
        if (still := monotonic() - self._turned) > _STALLED:
            return f"the event loop has not turned for {still:.0f} s"
        return self._worker.stalled()

    def _ready(self) -> str:
        return self._not_ready or self._worker.not_ready()

    async def _tick(self) -> None:
        while True:
            self._turned = monotonic()
            self._worker.tick()
            self._domains.tick()
            self._log.tick()
            await asyncio.sleep(1.0)

    async def _feed_watchdog(self) -> None:
        """Says that all loops turn, and nothing about any backend: slow is not dead."""
        if (seconds := service.watchdog_seconds()) is not None:
            while True:
                if not self._worker.stalled():
                    service.notify("WATCHDOG=1")
                await asyncio.sleep(seconds)

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
        config, fixed = in_force(config, self._config)
        if fixed:
            self._observe(warning("needs a restart to take effect", keys=" ".join(fixed)))
        self._drain_time = config.policyd.drain
        await self._worker.take(config)
        await self._domains.take(config)
        self._observe(notice("configuration reloaded", limits=len(config.limit), access=len(config.access)))

    # Stopping

    async def _drain(self) -> None:
        """Take no new connection; let what was half asked be asked and answered; close the rest."""
        self._not_ready = "stopping"
        service.notify("STOPPING=1")
        if self._listening is not None:
            self._listening.close()
        await self._worker.drain(self._drain_time)
