"""The milter on one page: what it is made of, how it starts, reloads and stops.

The main thread does nothing but wait for signals: Python runs their handlers
nowhere else, and not while that thread is inside libmilter.
"""

import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import TYPE_CHECKING

from mxweir import http, service
from mxweir.clock import system_clock
from mxweir.config import Config, ConfigError, load
from mxweir.events import Event, Trouble, notice, tell_all, warning
from mxweir.facts import Folder
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, ScanMetrics
from mxweir_milter import gauges, scanner
from mxweir_milter.allow import Allowed
from mxweir_milter.policy import treatments_of
from mxweir_milter.scanloop import ScanLoop
from mxweir_milter.session import Policy, Session
from mxweir_milter.tenants import Tenants

if TYPE_CHECKING:
    from mxweir_milter.fronts.libmilter import LibmilterFront

_STALLED = 10.0
"""Seconds without a turn of the scan loop before /livez fails."""

_FIXED = ("listen", "socket_mode", "socket_group", "http")

_NO_PYMILTER = (
    "pymilter cannot be loaded ({error}): install it with `pip install 'mxweir[milter]'`; "
    "it needs a C compiler and, on Debian, the packages libmilter-dev and python3-dev"
)


def run(config: Config, path: Path) -> int:
    """Run until SIGTERM; returns the exit status.

    0 after a clean stop, 1 when libmilter gave up or an address cannot be had,
    2 when it cannot start with these settings or without pymilter.
    """
    try:
        return MilterDaemon(config, path).run()
    except ImportError as error:
        trouble, status = _NO_PYMILTER.format(error=error), 2
    except service.ServiceError as error:
        trouble, status = str(error), error.status
    print(f"mxweir milter: {trouble}", file=sys.stderr)  # noqa: T201 -- there may be no log yet
    return status


def build_policy(config: Config, tenant_of: Callable[[str], str]) -> Policy:
    """What the sessions decide by; `tenant_of` gives the tenant of a folded domain, or ""."""
    milter = config.milter
    return Policy(
        deadline=milter.deadline,
        max_scan_size=milter.max_scan_size,
        treatments=treatments_of(milter, tenant_of),
        allowed=_allowed(config),
        skip=frozenset(milter.skip),
        mynetworks=config.keys.mynetworks,
        has_engine=bool(milter.engine),
    )


def _allowed(config: Config) -> Allowed | None:
    """None where no entry allows anything: then nothing is folded, and no list of suffixes is read."""
    if not any(entry.allow for entry in config.access):
        return None
    keys = config.keys
    return Allowed(config.access, Folder(keys.ipv4_prefix, keys.ipv6_prefix, keys.recipient_delimiter))


class MilterDaemon:
    """Wires everything; nothing else builds objects that live as long as the daemon."""

    def __init__(self, config: Config, path: Path) -> None:
        self._config = self._started_with = config
        self._path = path
        self._tenants = Tenants(config.state_dir)
        self._policy = build_policy(config, self._tenants.of)
        clock = system_clock()
        self._log = LogObserver(config.log, clock, "milter")
        self._metrics = Metrics("milter")
        self._telling = threading.Lock()
        self._observers = tell_all(ScanMetrics(self._metrics).handlers(), self._log.handlers())
        self._loop = ScanLoop(scanner.build(config.milter, self._observe))
        self._front = self._build_front(lambda: Session(lambda: self._policy, clock, monotonic))
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._not_ready = "starting"

    def run(self) -> int:
        """Start, serve until SIGTERM or SIGINT, finish the messages in hand and stop."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._gauges()
        pages = self._config.milter.http
        stop_http = http.serve("milter.http", pages, self._metrics, self._live, lambda: self._not_ready)
        try:
            self._front.open(self._config.milter.socket_mode, self._config.milter.socket_group)
            self._loop.start()
            self._front.start()
            self._say_started()
            well = self._wait()
            self._drain()
            self._front.stop()
        finally:
            stop_http()
            self._loop.stop()
            self._log.close()
        return 0 if well else 1

    def _observe(self, event: Event) -> None:
        """One event at a time: the observers are not made for libmilter's many threads."""
        with self._telling:
            self._observers(event)

    # Starting

    def _build_front(self, new_session: Callable[[], Session]) -> "LibmilterFront":
        # Imported here, so that everything else of the milter runs without libmilter.
        from mxweir_milter.fronts.libmilter import LibmilterFront  # noqa: PLC0415

        return LibmilterFront(self._config.milter.listen, new_session, self._loop.scan, self._observe)

    def _gauges(self) -> None:
        gauge, front = self._metrics.gauge, self._front
        gauge("mxweir_milter_sessions", "Open sessions of Postfix.", [], lambda: [((), front.sessions())])
        gauge("mxweir_milter_in_hand", "Messages begun and unanswered.", [], lambda: [((), front.in_hand())])
        gauge("mxweir_milter_scans", "Scans under way.", [], lambda: [((), self._loop.in_flight)])
        gauges.add(self._metrics, lambda: self._loop.scanner)
        gauge("mxweir_milter_threads", "Threads, libmilter's included.", [], lambda: [((), _threads())])

    def _say_started(self) -> None:
        self._not_ready = ""
        milter = self._config.milter
        self._warn(self._config)
        names = " ".join(f"{engine.type}={at}" for engine in milter.engine for at in engine.address)
        self._observe(notice("started", listen=str(milter.listen), engines=names or "none"))
        service.notify("READY=1")

    def _warn(self, config: Config) -> None:
        for text in config.warnings:
            if text.startswith("milter."):
                self._observe(Trouble("configuration warning", text))

    # While it runs

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # Of all queues and events, only this one may be used by a handler that interrupts its reader.
        self._signals.put(number)

    def _wait(self) -> bool:
        """Do what is due each second, until a signal says stop (true) or libmilter has ended (false)."""
        watched = service.watchdog_seconds()
        while not self._front.stopped.is_set():
            try:
                number = self._signals.get(timeout=min(1.0, watched or 1.0))
            except queue.Empty:
                pass
            else:
                if number != signal.SIGHUP:
                    return True
                self._reload()
            self._tenants.tick()
            with self._telling:
                self._log.tick()
            if watched and not self._live():
                service.notify("WATCHDOG=1")
        return False

    def _live(self) -> str:
        """The scan loop turns; whether any engine answers is no matter: slow is not dead."""
        still = self._loop.silent_for()
        return f"the scan loop has not turned for {still:.0f} s" if still > _STALLED else ""

    def _reload(self) -> None:
        """Take a new configuration whole, or keep the one in force."""
        service.notify(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1e6)}")
        try:
            self._take(load(self._path))
        except ConfigError as error:
            for line in error.lines():
                self._observe(warning("configuration not reloaded", why=line))
            self._observe(Trouble("configuration not reloaded", "the former one stays in force", "error"))
        except Exception as error:  # noqa: BLE001 - a file must not end the daemon, whatever is wrong with it
            why = f"{type(error).__name__}: {error}; the former one stays in force"
            self._observe(Trouble("configuration not reloaded", why, "error"))
        service.notify("READY=1")

    def _take(self, config: Config) -> None:
        # Made before anything changes: what fails here leaves all as it was.
        policy = build_policy(config, self._tenants.of)
        new_scanner = scanner.build(config.milter, self._observe, self._loop.scanner)
        old, new = self._started_with, config
        fixed = [f"milter.{key}" for key in _FIXED if getattr(new.milter, key) != getattr(old.milter, key)]
        fixed += ["log"] if new.log != old.log else []
        if fixed:
            self._observe(warning("needs a restart to take effect", keys=" ".join(fixed)))
        self._loop.scanner, self._policy = new_scanner, policy
        self._config = config
        self._warn(config)
        self._observe(notice("configuration reloaded", engines=len(config.milter.engine)))

    # Stopping

    def _drain(self) -> None:
        """Take no new sessions, and let the messages in hand be answered."""
        self._not_ready = "stopping"
        service.notify("STOPPING=1")
        self._front.refuse_new()
        until = monotonic() + self._config.milter.drain
        while (left := self._front.in_hand()) and monotonic() < until:
            sleep(0.02)
        self._observe(notice("stopped", unanswered=left))


def _threads() -> float:
    return float(sum(1 for _ in Path("/proc/self/task").iterdir()))
