"""The counters of a daemon's process, kept in a file from one process to the next."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from mxweir.clock import Clock
from mxweir.events import Observer, Trouble, notice
from mxweir.ratelimit import snapshot
from mxweir.ratelimit.limits import Limits
from mxweir.threads import in_thread


class Kept:
    """Loads and saves the limits in force, where there are any.

    A file that cannot be had is told, and costs nothing else.
    """

    def __init__(
        self, path: Path, limits: Callable[[], Limits | None], clock: Clock, observe: Observer
    ) -> None:
        self._path = path
        self._limits = limits
        self._clock = clock
        self._observe = observe

    def load(self) -> None:
        """Go on with the counters of a former process; a file that is damaged is put aside."""
        path, limits = self._path, self._limits()
        if limits is None:
            return
        try:
            count = snapshot.read(path, limits, self._clock())
            self._observe(notice("counters loaded", count=count))
        except FileNotFoundError:
            pass
        except (snapshot.SnapshotError, OSError) as error:
            kept = path.with_suffix(".broken")
            why = f"{path}: {error}; kept as {kept.name}, counting from zero"
            self._observe(Trouble("counters not loaded", why))
            path.rename(kept)

    def save(self) -> None:
        """Write them at once, as at the end of a process."""
        if (limits := self._limits()) is not None:
            try:
                snapshot.write(self._path, limits, self._clock())
            except OSError as error:
                self._not_saved(error)

    async def save_often(self, seconds: float) -> None:
        """Write them every so many seconds, bit by bit, for ever."""
        while True:
            await asyncio.sleep(seconds)
            if (limits := self._limits()) is None:
                continue
            try:
                for wait in snapshot.Writer(self._path, limits, self._clock()).steps():
                    await (asyncio.sleep(0) if wait is None else in_thread(wait))
            except OSError as error:
                self._not_saved(error)

    def _not_saved(self, error: OSError) -> None:
        why = f"{self._path}: {error.strerror}; the former file stays"
        self._observe(Trouble("counters not saved", why))
