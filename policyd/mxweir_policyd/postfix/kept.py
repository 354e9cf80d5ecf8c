"""Starts the process that keeps Postfix's tables, keeps it alive, and says what it says."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from random import random
from time import monotonic
from typing import cast

from mxweir.backoff import Backoff
from mxweir.events import Event, Observer, Trouble, notice
from mxweir_policyd.postfix.report import BEAT, Report, Settings

_SILENT = 300.0
"""Seconds without a word after which the tables count as not kept: it hangs, or writes millions of rows."""


_GOOD = 60.0
"""Seconds that a keeper must have lived for its end to be an accident, and not a fault of its start."""


class KeptTables:
    """Keeps one keeper for as long as there are settings for it; without, there is nothing to keep."""

    def __init__(self, settings: Settings | None, observe: Observer) -> None:
        self._settings = settings
        self._observe = observe
        self._renewed = asyncio.Event()
        self.last = Report()
        """What the keeper said last."""

    @property
    def wanted(self) -> bool:
        """Whether there are tables to keep."""
        return self._settings is not None

    @property
    def agree(self) -> bool:
        """Whether the tables were as ours at the last look."""
        return self.last.rows > 0 and not self.last.trouble

    async def run(self) -> None:
        """Have a keeper for ever; after one that ended, another, at a moment of its own."""
        backoff = Backoff()
        while True:
            self._renewed.clear()
            if self._settings is None:
                await self._renewed.wait()
                continue
            begun = monotonic()
            status = await self._live(self._settings)
            if monotonic() - begun > _GOOD:
                backoff.succeeded()
            self.last = Report()
            if not self._renewed.is_set():
                what = f"its keeper ended with status {status}; started again"
                self._observe(Trouble("Postfix tables not kept", what, "error"))
                with contextlib.suppress(TimeoutError):
                    # Not wait_for: before Python 3.12 it may swallow an order to stop.
                    async with asyncio.timeout(backoff.failed(random())):  # noqa: S311 - no secret
                        await self._renewed.wait()

    def renew(self, settings: Settings | None) -> None:
        """Go on with other settings."""
        if settings != self._settings:
            self._settings = settings
            self._renewed.set()

    async def _live(self, settings: Settings) -> int:
        """One keeper's life; returns its exit status."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "mxweir_policyd.postfix.keeper"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        stdin = cast("asyncio.StreamWriter", process.stdin)
        ended = asyncio.ensure_future(self._renewed.wait())
        ended.add_done_callback(lambda _: stdin.close())
        try:
            stdin.write(settings.line())
            await self._listen(cast("asyncio.StreamReader", process.stdout), settings)
            return await process.wait()
        finally:
            # The end of its stdin is the order to stop, also when the daemon stops or is killed.
            ended.cancel()
            stdin.close()

    async def _listen(self, said: asyncio.StreamReader, settings: Settings) -> None:
        """Until the keeper ends. A silent one is not killed: it may wait for a lock, as would the next."""
        spoken, silent = Report(), False
        while True:
            try:
                async with asyncio.timeout(_SILENT):
                    line = await said.readline()
            except TimeoutError:
                if not silent:
                    self._take(Report(trouble=f"its keeper has said nothing for {_SILENT:g} s"), settings)
                silent = True
                continue
            if not line:
                return
            if line != BEAT:
                spoken = Report.of_line(line)
                self._take(spoken, settings)
            elif silent:
                self._take(spoken._replace(put=0, removed=0, rebuilt=0), settings)
            silent = False

    def _take(self, report: Report, settings: Settings) -> None:
        former, self.last = self.last, report
        for event in _events(report, former, settings):
            self._observe(event)


def _events(report: Report, former: Report, settings: Settings) -> Iterator[Event]:
    if report.trouble:
        yield Trouble("Postfix tables not kept", report.trouble, "error")
    elif report.rows or former.trouble:
        fields = {
            "put": report.put,
            "removed": report.removed,
            "rebuilt": report.rebuilt,
            "rows": report.rows,
        }
        yield notice("Postfix tables kept", directory=settings.directory, **fields)
