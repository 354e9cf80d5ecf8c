"""What a worker says to the parent, without ever waiting for it."""

import asyncio
from collections.abc import Callable
from typing import Any, get_args

from mxweir.events import Counted, Decided, Event, Handlers, Passed, Trouble, Unanswered
from mxweir_policyd.workers.messages import Report, Told, packed

_UNREAD = 2**20
"""Bytes of reports that may wait for the parent; what comes on top is dropped, as is its log then."""

LINES = (Decided, Passed)
"""Events of single questions: their lines are the worker's own, and so many that nobody copies them twice."""

OWN = (*LINES, Counted, Unanswered)
"""Events that the worker counts itself: told to the parent, they would be counted twice."""


class Reports(asyncio.BaseProtocol):
    """What goes to the parent, without ever waiting for it."""

    def __init__(self) -> None:
        self._gone = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is there."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """The parent is gone, or all is written at the end."""
        self._gone.set_result(None)

    def send(self, report: Report) -> bool:
        """Report something, soon; False if too much waits for the parent already."""
        if self._gone.done() or self._transport.get_write_buffer_size() > _UNREAD:
            return False
        self._transport.write(packed(report))
        return True

    async def end(self) -> None:
        """Wait until all is written."""
        self._transport.close()
        await self._gone


class Tally:
    """So many of something, until the parent has heard of them: none of them may be dropped."""

    def __init__(self, reports: Reports, kind: Callable[[int], Report]) -> None:
        self.count = 0
        self._reports = reports
        self._kind = kind

    def report(self) -> None:
        """Report them, if there are any and the parent listens."""
        if self.count and self._reports.send(self._kind(self.count)):
            self.count = 0


class Telling:
    """Has the parent tell what is not about one question, so that it is told once for all workers."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._troubles: dict[str, Trouble] = {}

    def handlers(self) -> Handlers:
        """What it is that the parent tells."""
        kinds: dict[type, Any] = {kind: self._tell for kind in get_args(Event) if kind not in OWN}
        return kinds | {Trouble: self._trouble}

    def tick(self) -> None:
        """Call it every second or so: troubles of one kind were collected meanwhile."""
        troubles, self._troubles = self._troubles, {}
        for trouble in troubles.values():
            if trouble.times:
                self._tell(trouble)

    def _tell(self, event: Event) -> None:
        self._reports.send(Told(event))

    def _trouble(self, event: Trouble) -> None:
        """The first of its kind at once; those after it, in the same second, together."""
        former = self._troubles.get(event.what)
        if former is None:
            self._tell(event)
        times = 0 if former is None else former.times + event.times
        self._troubles[event.what] = event._replace(times=times)
