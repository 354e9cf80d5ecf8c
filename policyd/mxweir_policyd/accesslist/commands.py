"""The operators' list of a running daemon: in the file of this host, and in Redis where there is one."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from mxweir.access import Index
from mxweir.clock import Clock
from mxweir.config import Config
from mxweir.events import Observer, Trouble, notice
from mxweir.metrics import Metrics
from mxweir.redis.servers import Servers
from mxweir.threads import in_thread
from mxweir_policyd.accesslist import kept, remote
from mxweir_policyd.accesslist.book import Book
from mxweir_policyd.accesslist.follow import Follower
from mxweir_policyd.accesslist.record import Record, parse

_FIRST_NEWS = 1.0
"""Seconds."""

_TOLD = 5
"""Changes that are told one by one."""


class Commands:
    """What operators said by command.

    `index` is what the access list looks them up in, always the same object;
    `first_or_last` is called when it gets its first entry, or loses its last.
    """

    def __init__(
        self,
        config: Config,
        servers: Servers | None,
        clock: Clock,
        observe: Observer,
        metrics: Metrics,
    ) -> None:
        self._path = kept.list_path(config.state_dir)
        self._writer = kept.Writer(self._path)
        self._clock = clock
        self._observe = observe
        self._book = Book()
        self.index: Index = self._book.index
        self.first_or_last: Callable[[], None] = lambda: None
        self._empty = True
        self._unsaved = False
        self._saving = asyncio.Lock()
        self._follower: Follower | None = None
        if servers is not None and config.redis is not None:
            names = remote.Names(config.redis.prefix)
            self._follower = Follower(servers, names, self._book, clock, observe, self._changed)
        self._gauges(metrics)

    def load(self) -> None:
        """Take what the last daemon knew; what has expired since is over."""
        load(self._path, self._book, self._clock(), self._observe)
        self._look()

    async def first_news(self) -> None:
        """Catch up with Redis before serving, for a second at most: else what is known serves meanwhile."""
        if self._follower is not None:
            await asyncio.wait([asyncio.ensure_future(self._follower.catch_up())], timeout=_FIRST_NEWS)

    def works(self) -> Iterable[Callable[[], Coroutine[None, None, None]]]:
        """What goes on in the background, each for ever."""
        yield self._keep
        if self._follower is not None:
            yield self._follower.run

    def tick(self) -> None:
        """Drop what is over; call it every second or so."""
        if over := self._book.expire(self._clock()):
            self._observe(notice("access entries expired", count=over))
            self._unsaved = True
            self._look()

    async def say(self, said: Any) -> dict[str, Any]:
        """An operator's word, given on this host; without Redis. What became of it, in JSON's types.

        Takes what `Record.said` gives; raises ValueError for anything else.
        """
        if self._follower is not None:
            return {"error": "this daemon's list is in Redis: say it there"}
        record = parse(f"0 0 {said}")
        before = self._book.get(record.field)
        if not record.action and (before is None or not before.action):
            return {"nothing": True}
        made = max(int(self._clock() * 1e6), self._book.version + 1)
        record = record._replace(made=made, version=made)
        if not self._book.take(record, self._clock()):
            return {"full": True}
        self._changed([record])
        return {"version": made, "before": before.line() if before else "", "unsaved": await self._save()}

    def close(self) -> None:
        """Save what is not saved, and let others write the file."""
        try:
            if self._unsaved and self._writer.chosen():
                self._writer.write(self._held())
        except OSError as error:
            self._not_saved(error)
        self._writer.close()

    def _changed(self, records: Sequence[Record]) -> None:
        self._unsaved = True
        self._look()
        if self._speaks():
            self._tell(records)

    def _speaks(self) -> bool:
        """Whether this process of several on this host is the one that tells what they all hear."""
        try:
            return self._writer.chosen()
        except OSError:
            return True

    def _tell(self, records: Sequence[Record]) -> None:
        for record in records[:_TOLD]:
            self._observe(
                notice(
                    "access entry changed",
                    action=record.action or "withdrawn",
                    key=record.key,
                    value=record.value,
                    reason=record.reason,
                    by=record.by,
                )
            )
        if len(records) > _TOLD:
            self._observe(notice("access entries changed", count=len(records), entries=self._book.entries))

    def _look(self) -> None:
        if self.index.empty != self._empty:
            self._empty = self.index.empty
            self.first_or_last()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self._unsaved:
                await self._save()

    async def _save(self) -> str:
        """Write the file; "" if that was done, or another process of this host does it, else why not."""
        async with self._saving:  # else an older list could be written over a newer one
            self._unsaved = False
            try:
                if self._writer.chosen():
                    await in_thread(partial(self._writer.write, self._held()))
            except OSError as error:
                self._unsaved = True
                self._not_saved(error)
                return f"{self._path}: {error.strerror}"
        return ""

    def _held(self) -> kept.Kept:
        return kept.Kept(self._book.history, self._book.version, self._book.records())

    def _not_saved(self, error: OSError) -> None:
        self._observe(
            Trouble("access list not saved", f"{self._path}: {error.strerror}; the former file stays")
        )

    def _gauges(self, metrics: Metrics) -> None:
        follower = self._follower
        metrics.gauge(
            "mxweir_access_entries",
            "Entries that operators made by command.",
            [],
            lambda: [((), float(self._book.entries))],
        )
        metrics.gauge(
            "mxweir_access_lag_seconds",
            "How long the last command took from Redis until it was in force here.",
            [],
            lambda: [((), follower.lag)] if follower else [],
        )
        metrics.gauge(
            "mxweir_access_age_seconds",
            "Since the commands were known to be those in Redis.",
            [],
            lambda: [((), monotonic() - follower.heard)] if follower and follower.heard is not None else [],
        )


def load(path: Path, book: Book, now: float, observe: Observer) -> None:
    """Take what a file holds; one that is damaged is put aside."""
    try:
        held = kept.read(path)
    except FileNotFoundError:
        return
    except (kept.DamagedError, OSError) as error:
        aside = path.with_suffix(".broken")
        observe(Trouble("access list not loaded", f"{path}: {error}; kept as {aside.name}", "error"))
        with contextlib.suppress(OSError):  # another worker was quicker
            path.rename(aside)
        return
    book.load(*held, now)
