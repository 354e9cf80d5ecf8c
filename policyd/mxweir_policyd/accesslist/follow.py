"""Keep a host's list what Redis has.

A change is told on a channel; besides, the version is asked for every 0.8 s, because
a connection that is dead on the other side tells nothing. Either only says *that*
there is news: what it is, is read from where this host was.

Redis may come to have less than this host has seen: it was emptied, or a replica took
over that had not heard the last of it. Then the host gives back what Redis lacks
(`restore.lua`), and reads all of it. Meanwhile, and as long as Redis does not answer,
the list stays as it is; entries end when they end.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from time import monotonic

from mxweir.clock import Clock
from mxweir.events import Observer, Trouble, notice
from mxweir.redis.call import Then
from mxweir.redis.errors import RedisError
from mxweir.redis.script import Script
from mxweir.redis.servers import Servers
from mxweir_policyd.accesslist import remote
from mxweir_policyd.accesslist.book import Book
from mxweir_policyd.accesslist.record import Record
from mxweir_policyd.accesslist.remote import PAGE, RESTORE, SINCE, Reading

_POLL = 0.8
"""Seconds: an entry is in force everywhere within one."""

_TIMEOUT = 2.0
"""Seconds for one call; nobody waits for it but we."""


class Follower:
    """Follows the list in Redis; `changed` is called when the book is another one than before.

    It is given what is news to this host: nothing, where only versions are others than before.
    """

    def __init__(
        self,
        servers: Servers,
        names: remote.Names,
        book: Book,
        clock: Clock,
        observe: Observer,
        changed: Callable[[Sequence[Record]], None],
    ) -> None:
        self._servers = servers
        self._names = names
        self._book = book
        self._clock = clock
        self._observe = observe
        self._changed = changed
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._in_step = False
        self._failing_since = 0.0
        self.lag = 0.0
        """Seconds that the last change took from Redis to here, at most."""
        self.heard: float | None = None
        """When the list was last known to be what Redis has, by `time.monotonic`."""

    async def run(self) -> None:
        """Follow, for ever."""
        self._servers.subscribe(self._names.channel, lambda _: self._news.set(), self._news.set)
        while True:
            await self.catch_up(asked=self._news.is_set())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._news.wait()

    async def catch_up(self, *, asked: bool = True) -> bool:
        """Read what is new; False without an answer. Unless `asked`, look first whether there is any."""
        self._news.clear()
        try:
            async with self._reading:
                if asked or await self._version() != self._book.version:
                    await self._read_on()
        except (RedisError, ValueError) as error:
            self._failed(error)
            return False
        self.heard = monotonic()
        if self._failing_since:
            seconds = round(monotonic() - self._failing_since)
            self._observe(notice("access list followed again", after=seconds))
            self._failing_since = 0.0
        self._in_step = True
        return True

    async def _version(self) -> int:
        command = ("HGET", self._names.records, "version")
        answer, then = _awaited()
        self._servers.ask(command, self._names.records, then, _TIMEOUT)
        return int(_bytes(_reply(await answer) or b"0"))

    async def _read_on(self) -> None:
        book = self._book
        asked = monotonic()
        reading = await self._since(book.version)
        if not remote.in_step(reading, book.history, book.version):
            await self._start_over(reading)
            return
        book.history = reading.history
        while True:
            news = self._take(reading.records)
            book.version = reading.read if reading.more else reading.version
            self._measure(reading, asked)
            if reading.records:
                self._changed(news)
            if not reading.more:
                return
            asked = monotonic()
            reading = await self._since(book.version)

    async def _start_over(self, reading: Reading) -> None:
        """Give back what Redis lacks, and read all that it has."""
        book = self._book
        lacking = remote.to_give_back(reading, book.history, book.records())
        if lacking or reading.floor < book.version:
            await self._give_back(reading.history, lacking)
        fields: set[str] = set()
        news: list[Record] = []
        page = first = await self._since(0)
        while True:
            if page.history != first.history:
                self._news.set()  # emptied under our hands: look again
                self._changed(news)
                return
            news += self._take(page.records)
            fields.update(record.field for record in page.records)
            if not page.more:
                break
            page = await self._since(page.read)
        book.retain(fields)
        book.history, book.version = page.history, page.version
        self._changed(news)

    async def _give_back(self, saw: str, lacking: list[Record]) -> None:
        for start in range(0, max(1, len(lacking)), PAGE):
            some = lacking[start : start + PAGE]
            arguments = remote.restore(self._names, saw, self._book.version, some)
            history = _bytes(_reply(await self._call(RESTORE, arguments)))
            if saw and history != saw:
                return  # somebody was quicker: what is there now is read, and looked at again
            saw = history
        self._observe(notice("access list given back to Redis", count=len(lacking)))

    def _take(self, records: Sequence[Record]) -> list[Record]:
        """Put them into the book; those that say something else than it said before."""
        now = self._clock()
        news = [record for record in records if not record.repeats(self._book.get(record.field))]
        lost = sum(not self._book.take(record, now) for record in records)
        if lost:
            self._observe(Trouble("access list is full", f"{lost} entries were not taken"))
        return news

    def _measure(self, reading: Reading, asked: float) -> None:
        """From when it was said, by Redis's clock, until now, and rather too long than too short."""
        said = [record.version for record in reading.records if record.version == record.made]
        if said and self._in_step:
            self.lag = max(0.0, (reading.now - min(said)) / 1e6) + monotonic() - asked

    async def _since(self, version: int) -> Reading:
        reading = remote.read(_reply(await self._call(SINCE, [str(version), PAGE])), version)
        if reading.bad:
            self._observe(Trouble("access entries not understood", f"{reading.bad} records in Redis"))
        return reading

    def _call(self, script: Script, arguments: Sequence[str | int]) -> "asyncio.Future[object]":
        answer, then = _awaited()
        self._servers.eval(script, self._names.keys, arguments, then, _TIMEOUT)
        return answer

    def _failed(self, error: Exception) -> None:
        if not self._failing_since:
            self._failing_since = monotonic()
            what = f"{error}; this host goes by what it knows, of {len(self._book)} entries"
            self._observe(Trouble("access list not followed", what))


def _awaited() -> tuple["asyncio.Future[object]", Then]:
    """An answer to wait for, and what to call with it."""
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def then(reply: object) -> None:
        if not answer.done():
            answer.set_result(reply)

    return answer, then


def _reply(reply: object) -> object:
    if isinstance(reply, RedisError):
        raise reply
    return reply


def _bytes(reply: object) -> str:
    if not isinstance(reply, bytes):
        raise ValueError(f"no reply of the script: {reply!r:.100}")
    return reply.decode()
