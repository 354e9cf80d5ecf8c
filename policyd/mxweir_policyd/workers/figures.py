"""What the workers count, as the figures of one service."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from mxweir.metrics import Counter, Figures, Histogram, merged
from mxweir_policyd.workers.member import Member, WorkerEndedError
from mxweir_policyd.workers.messages import Show

_SCRAPE = 1.0
"""Seconds that a scrape waits for a worker's figures; then those last heard count."""

_PATIENCE = 2.0
"""Seconds after which the parent's own loop is not waited for either."""


class Figuring:
    """Sums up what the workers have counted, those that are gone too; of those, no gauges."""

    def __init__(self, members: Callable[[], Iterable[Member]]) -> None:
        self._members = members
        self._retired: Figures = ()
        self.loop: asyncio.AbstractEventLoop | None = None
        """The parent's, once it runs."""

    def retire(self, member: Member) -> None:
        """A worker has ended: counters that went back would look like a restart of the service."""
        lasting = [family for family in member.figures if isinstance(family, Counter | Histogram)]
        self._retired = merged(self._retired, lasting)

    def read(self) -> Sequence[Figures]:
        """The figures, as of now; from the thread of a scrape."""
        if self.loop is None:
            return ()
        hearing = asyncio.run_coroutine_threadsafe(self._heard(), self.loop)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            return hearing.result(_PATIENCE)
        return self._last_heard()

    async def _heard(self) -> Sequence[Figures]:
        await asyncio.gather(*(_refresh(member) for member in self._members() if member.serving))
        return self._last_heard()

    def _last_heard(self) -> Sequence[Figures]:
        return [self._retired, *(member.figures for member in self._members())]


async def _refresh(member: Member) -> None:
    with contextlib.suppress(TimeoutError, WorkerEndedError):
        member.figures = await member.ask(Show(), _SCRAPE)
