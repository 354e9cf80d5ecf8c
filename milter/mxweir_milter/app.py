"""The milter on one page: what it is made of, how it starts, reloads and stops.

One event loop in the main thread: it scans, and with the front on asyncio it
serves too. libmilter's front has threads of its own, and hands its messages over.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path
from time import monotonic

from mxweir import http, service
from mxweir.background import go_on
from mxweir.clock import system_clock
from mxweir.config import Config, ConfigError, load
from mxweir.deadline import Deadline
from mxweir.events import Event, Trouble, notice, tell_all, warning
from mxweir.facts import Folder
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, ScanMetrics
from mxweir.redis.servers import add_gauge
from mxweir.serving import new_event_loop
from mxweir.threads import in_thread
from mxweir_milter import gauges, scanner
from mxweir_milter.allow import Allowed
from mxweir_milter.counting import Counting, asking_of
from mxweir_milter.fronts import Front
from mxweir_milter.message import Message
from mxweir_milter.policy import treatments_of
from mxweir_milter.reloading import in_force
from mxweir_milter.room import Room
from mxweir_milter.session import Policy, Session
from mxweir_milter.tenants import Tenants
from mxweir_milter.verdict import Result

_STALLED = 10.0
"""Seconds without a turn of the loop before /livez fails."""

_LINGER = 3.0
"""Seconds that open sessions go on after a stop: who has connected is about to send a message."""

_OTHER_FILES = 64
"""File descriptors beside those of sessions and scans."""

_NO_PYMILTER = (
    'milter.front = "libmilter", but pymilter cannot be loaded ({error}): '
    "`make install` brings it for this setting (in an environment of your own: the extra mxweir[milter]); "
    'or use the front that needs nothing, "asyncio"'
)


def run(config: Config, path: Path) -> int:
    """Run until SIGTERM; returns the exit status.

    0 after a clean stop, 1 when libmilter gave up or an address cannot be had,
    2 when it cannot start with these settings or without pymilter.
    """
    _preempt_nobody()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(MilterDaemon(config, path).run())
    except ImportError as error:
        trouble, status = _NO_PYMILTER.format(error=error), 2
    except service.ServiceError as error:
        trouble, status = str(error), error.status
    print(f"mxweir milter: {trouble}", file=sys.stderr)  # noqa: T201 -- there may be no log yet
    return status


def _preempt_nobody() -> None:
    """Have all our threads wait for their turn when they wake (Linux sched(7), SCHED_BATCH).

    A milter has seconds, and each command of a session wakes it. To take the place of
    whoever said it, in the middle of his work, costs both their processor's caches.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def build_policy(config: Config, tenants: Tenants) -> Policy:
    """What the sessions decide by, with empty counters."""
    milter, folder = config.milter, _folder(config)
    if any(policy.tenant for policy in milter.policy):
        tenants.open()
    return Policy(
        deadline=milter.deadline,
        max_scan_size=milter.max_scan_size,
        treatments=treatments_of(milter, tenants.of),
        allowed=Allowed(config.access, folder) if folder and _allows(config) else None,
        skip=frozenset(milter.skip),
        mynetworks=config.keys.mynetworks,
        has_engine=bool(milter.engine),
        limits=asking_of(config, folder) if folder else None,
    )


def _folder(config: Config) -> Folder | None:
    """None where nothing is folded: then no list of suffixes is read."""
    if not _allows(config) and not any(limit.by_content for limit in config.limit):
        return None
    keys = config.keys
    return Folder(keys.ipv4_prefix, keys.ipv6_prefix, keys.recipient_delimiter)


def _allows(config: Config) -> bool:
    return any(entry.allow for entry in config.access)


class MilterDaemon:
    """Wires everything; nothing else builds objects that live as long as the daemon."""

    def __init__(self, config: Config, path: Path) -> None:
        self._config = self._started_with = config
        self._path = path
        self._clock = system_clock()
        self._log = LogObserver(
            config.log, self._clock, "milter", later=lambda write: asyncio.get_running_loop().call_soon(write)
        )
        self._metrics = Metrics("milter")
        self._observe = tell_all(ScanMetrics(self._metrics).handlers(), self._log.handlers())
        self._tenants = Tenants(config.state_dir, self._observe)
        self._policy = build_policy(config, self._tenants)
        self._counting = Counting(config, self._policy.limits, self._clock, self._observe)
        self._room = Room(config.milter.max_memory)
        self._scanner = scanner.build(config.milter, self._observe)
        self._scans = 0
        self._signals = asyncio.Queue[signal.Signals]()
        self._not_ready = "starting"
        self._turned = monotonic()

    async def run(self) -> int:
        """Start, serve until SIGTERM or SIGINT, finish the messages in hand and stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        front = self._build_front(loop)
        self._gauges(front)
        pages = self._config.milter.http
        stop_http = http.serve("milter.http", pages, self._metrics, self._live, lambda: self._not_ready)
        try:
            await self._counting.start()
            save_often = partial(self._counting.kept.save_often, self._config.milter.save_every)
            saving = loop.create_task(go_on(save_often, self._observe))
            service.allow_files(2 * self._config.milter.max_sessions + _OTHER_FILES)
            await front.open()
            self._say_started()
            well = await self._wait(front)
            await self._drain(front)
            saving.cancel()
            self._counting.close()
        finally:
            stop_http()
            self._log.close()
        return 0 if well else 1

    # Starting

    def _build_front(self, loop: asyncio.AbstractEventLoop) -> Front:
        # Imported here, so that neither needs what only the other one needs.
        milter = self._config.milter
        if milter.front == "libmilter":
            from mxweir_milter.fronts.bridge import Bridge  # noqa: PLC0415
            from mxweir_milter.fronts.libmilter import LibmilterFront  # noqa: PLC0415

            # The observers are not made for libmilter's many threads.
            def observe(event: Event) -> None:
                loop.call_soon_threadsafe(self._observe, event)

            return LibmilterFront(milter, self._session, Bridge(self._scan, loop).scan, observe)
        from mxweir_milter.fronts.asyncio import AsyncioFront  # noqa: PLC0415

        return AsyncioFront(milter, self._session, self._scan, self._observe, self._scanner.sockets)

    def _session(self) -> Session:
        return Session(lambda: self._policy, self._clock, monotonic, self._room)

    async def _scan(self, message: Message, deadline: Deadline) -> Result:
        if message.question is not None and (instead := await self._counting.ask(message.question)):
            return instead
        self._scans += 1
        try:
            return await self._scanner.scan(message, deadline)
        finally:
            self._scans -= 1

    def _gauges(self, front: Front) -> None:
        gauge = self._metrics.gauge
        gauge("mxweir_milter_sessions", "Open sessions of Postfix.", [], lambda: [((), front.sessions())])
        gauge("mxweir_milter_in_hand", "Messages begun and unanswered.", [], lambda: [((), front.in_hand())])
        gauge("mxweir_milter_scans", "Scans under way.", [], lambda: [((), self._scans)])
        gauge("mxweir_milter_held_bytes", "Content of messages in hand.", [], lambda: [((), self._room.used)])
        gauges.add(self._metrics, lambda: self._scanner)
        text = "Keys that a limit by content remembers."
        gauge("mxweir_milter_limit_keys", text, ["limit"], self._counting.sizes)
        add_gauge(self._metrics, self._counting.servers)
        gauge("mxweir_milter_threads", "Threads, libmilter's included.", [], lambda: [((), _threads())])
        loop = asyncio.get_running_loop()
        text = "Tasks of the event loop, one a scan under way among them."
        gauge("mxweir_milter_tasks", text, [], lambda: [((), len(asyncio.all_tasks(loop)))])

    def _say_started(self) -> None:
        self._not_ready = ""
        gc.freeze()
        milter = self._config.milter
        self._warn(self._config)
        names = " ".join(f"{engine.type}={at}" for engine in milter.engine for at in engine.address)
        self._observe(
            notice("started", listen=str(milter.listen), front=milter.front, engines=names or "none")
        )
        service.notify("READY=1")

    def _warn(self, config: Config) -> None:
        for text in config.warnings:
            if text.startswith("milter."):
                self._observe(Trouble("configuration warning", text))

    # While it runs

    async def _wait(self, front: Front) -> bool:
        """Do what is due each second, until a signal or the front ends it; whether that was well."""
        watched = service.watchdog_seconds()
        while not front.ended:
            self._turned = monotonic()
            self._tenants.tick()
            self._counting.tick()
            self._log.tick()
            if watched:
                # The loop turns; whether any engine answers is no matter: slow is not dead.
                service.notify("WATCHDOG=1")
            try:
                async with asyncio.timeout(min(1.0, watched or 1.0)):
                    number = await self._signals.get()
            except TimeoutError:
                continue
            if number != signal.SIGHUP:
                return True
            await self._reload()
        return not front.failed

    def _live(self) -> str:
        still = monotonic() - self._turned
        return f"the event loop has not turned for {still:.0f} s" if still > _STALLED else ""

    async def _reload(self) -> None:
        """Take a new configuration whole, or keep the one in force."""
        service.notify(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1e6)}")
        try:
            self._take(*await in_thread(self._read))
        except ConfigError as error:
            for line in error.lines():
                self._observe(warning("configuration not reloaded", why=line))
            self._observe(Trouble("configuration not reloaded", "the former one stays in force", "error"))
        except Exception as error:  # noqa: BLE001 - a file must not end the daemon, whatever is wrong with it
            why = f"{type(error).__name__}: {error}; the former one stays in force"
            self._observe(Trouble("configuration not reloaded", why, "error"))
        service.notify("READY=1")

    def _read(self) -> tuple[Config, Policy, list[str]]:
        config, fixed = in_force(load(self._path), self._started_with)
        return config, build_policy(config, self._tenants), fixed

    def _take(self, config: Config, policy: Policy, fixed: list[str]) -> None:
        # Made before anything changes: what fails here leaves all as it was.
        new_scanner = scanner.build(config.milter, self._observe, self._scanner)
        self._counting.take(config, policy.limits)
        if fixed:
            self._observe(warning("needs a restart to take effect", keys=" ".join(fixed)))
        self._scanner, self._policy, self._config = new_scanner, policy, config
        self._room.most = config.milter.max_memory
        self._warn(config)
        self._observe(notice("configuration reloaded", engines=len(config.milter.engine)))

    # Stopping

    async def _drain(self, front: Front) -> None:
        """Take no new sessions, and let the messages in hand be answered."""
        self._not_ready = "stopping"
        service.notify("STOPPING=1")
        front.refuse_new()
        began = monotonic()
        while (left := front.in_hand()) or front.sessions():
            passed = monotonic() - began
            if passed >= self._config.milter.drain or (not left and passed >= _LINGER):
                break
            if passed >= _LINGER:
                front.close_idle()
            await asyncio.sleep(0.02)
        await front.stop()
        self._observe(notice("stopped", unanswered=left))


def _threads() -> float:
    return float(sum(1 for _ in Path("/proc/self/task").iterdir()))
