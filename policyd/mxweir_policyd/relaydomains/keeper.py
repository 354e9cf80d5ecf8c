"""Starts the follower's process, keeps it alive, and says what it says.

One a host: it is started with a lock in the state directory that lasts as long
as that process, however it ends. Further daemons of this host wait for it.
"""

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import random
from time import monotonic
from typing import cast

from mxweir.backoff import Backoff
from mxweir.events import Event, Observer, Trouble, notice, warning
from mxweir_policyd.relaydomains.report import BEAT, Following, Report, Settings

_WAIT = 5.0
"""Seconds between two looks whether another daemon's follower is gone."""

_GOOD = 60.0
"""Seconds that a follower must have lived for its end to be an accident, and not a fault of its start."""

_SILENT = 60.0
"""Seconds more than a query may take, after which a follower that says nothing is taken for hung."""

_BEHIND = (Following.FILLING, Following.FROZEN, Following.FAILING)
"""States in which a notified change may not come into the replica: each report may be of one."""

_EVENTS: dict[Following, Callable[[], Event]] = {
    Following.FOLLOWING: lambda: notice("relay domains follow PostgreSQL"),
    Following.FROZEN: lambda: warning("relay domains are frozen"),
}
"""What is told when the follower is at something else than before; other states are troubles, or not told."""

TROUBLES: dict[str, Callable[[str], Event]] = {
    "away": lambda detail: Trouble("PostgreSQL cannot be asked", detail),
    "damaged": lambda detail: Trouble("replica damaged", detail, "error"),
    "failing": lambda detail: Trouble("replica not written", detail, "error"),
    "unindexed": lambda detail: Trouble("PostgreSQL has no index for a query", detail, "error"),
    "unnotified": lambda detail: Trouble("PostgreSQL does not notify", detail),
}
"""What a report may have as its trouble."""


class Keeper:
    """Keeps one follower; `changed` is called when the replica or what the follower is at has changed."""

    def __init__(self, settings: Settings, observe: Observer, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._observe = observe
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._renewed = asyncio.Event()
        self.last = Report(Following.STARTING)
        """What the follower said last."""
        self.lag = 0.0
        """Seconds that the last change may have waited until it was in force."""

    async def run(self) -> None:
        """Have a follower for ever; after one that ended, another, at a moment of its own."""
        backoff = Backoff()
        while True:
            self._renewed.clear()
            wait = _WAIT
            if (lock := self._lock()) is not None:
                begun = monotonic()
                status = await self._live(lock)
                if monotonic() - begun > _GOOD:
                    backoff.succeeded()
                if not self._renewed.is_set():
                    self._observe(Trouble("follower ended", f"exit status {status}; started again", "error"))
                wait = backoff.failed(random())  # noqa: S311 - no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._renewed.wait()

    def renew(self, settings: Settings) -> None:
        """Go on with other settings."""
        if settings != self._settings:
            self._settings = settings
            self.restart()

    def restart(self) -> None:
        """End the follower, and start another one at once."""
        self._renewed.set()
        self.last = Report(Following.STARTING)
        if self._process is not None:
            _end(self._process)

    def _lock(self) -> int | None:
        try:
            return take_lock(Path(self._settings.state_dir))
        except OSError as error:
            self._observe(Trouble("follower not started", f"{error.filename}: {error.strerror}", "error"))
            return None

    async def _live(self, lock: int) -> int:
        """One follower's life; returns its exit status. The lock is the follower's from now on."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "mxweir_policyd.relaydomains.follower"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)
        self._process = process
        try:
            cast("asyncio.StreamWriter", process.stdin).write(self._settings.line())
            await self._listen(cast("asyncio.StreamReader", process.stdout))
            return await process.wait()
        except TimeoutError:
            _end(process)
            return await process.wait()
        finally:
            self._process = None
            if process.returncode is None:  # the daemon stops
                _end(process)
                await process.wait()

    async def _listen(self, said: asyncio.StreamReader) -> None:
        """Until the follower ends; TimeoutError when it says nothing for so long that it must hang."""
        silent = self._settings.postgres.query_timeout + _SILENT
        while True:
            async with asyncio.timeout(silent):
                line = await said.readline()
            if not line:
                return
            if line != BEAT:
                self._take(Report.of_line(line))

    def _take(self, report: Report) -> None:
        former, self.last = self.last, report
        again = report.state is former.state and report.state not in _BEHIND
        if report.changed or report.lost or not again:
            self._changed()
        if report.trouble and (report.state, report.trouble) != (former.state, former.trouble):
            self._observe(TROUBLES[report.trouble](report.detail))
        elif report.state is not former.state and report.state in _EVENTS:
            self._observe(_EVENTS[report.state]())
        if report.state is Following.FILLING and _tenths(report) != _tenths(former):
            self._observe(notice("relay domains are being filled", done=f"{report.share:.0%}"))
        if report.changed or report.lost:
            self.lag = report.lag
            self._observe(notice("relay domains changed", changed=report.changed, lost=report.lost))
        if report.held > former.held:
            hint = "if that is meant, run: mxweir domains verify --accept"
            self._observe(
                Trouble("relay domains refused to shrink", f"{report.held} would go; {hint}", "error")
            )


def _tenths(report: Report) -> int:
    """How many tenths of a first fill are done; -1 where none is going on."""
    return int(report.share * 10) if report.state is Following.FILLING else -1


def take_lock(directory: Path) -> int | None:
    """A descriptor that holds the lock of this host's follower; None while another process has it.

    Raises OSError where there can be no lock: no right to the directory, no room on the disk.
    """
    # Where no daemon has run yet, there is nobody to wait for.
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    descriptor = os.open(directory / "follower.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _end(process: asyncio.subprocess.Process) -> None:
    """At whatever instant: the replica is always whole, and one that hangs would hear of nothing else."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
