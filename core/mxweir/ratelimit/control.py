"""What the command line asks a running daemon about its own counters: `mxweir limits show | top | reset`.

Where limits are counted in Redis, these are asked there, and not here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from heapq import nlargest
from math import ceil
from typing import Any

from mxweir.clock import Clock
from mxweir.facts import Folder
from mxweir.ratelimit.arithmetic import ROUNDING
from mxweir.ratelimit.limits import Limit, Limits
from mxweir.ratelimit.lookup import Place, Use, places_of, use, used_of

_AT_ONCE = 5_000
"""Counters that are looked at before questions are answered again: some milliseconds."""

MOST = 1000
"""Keys of a limit that are listed."""


class LimitsControl:
    """Answers about limits; `in_force` gives those that count now, and what folds their keys; None: none."""

    def __init__(self, in_force: Callable[[], tuple[Limits, Folder] | None], clock: Clock) -> None:
        self._in_force = in_force
        self._clock = clock

    async def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer in JSON's types.

        `{"show": KEY}`, `{"reset": KEY}` or `{"top": how many}`, with the limit's name
        as "limit" or "". Raises KeyError, TypeError, ValueError for what is no question.
        """
        in_force = self._in_force()
        if in_force is None:
            return {"uses": [], "passed_over": []}
        all_limits, folder = in_force
        limits = [limit for limit in all_limits.limits if question["limit"] in ("", limit.name)]
        if "top" in question:
            most = min(int(question["top"]), MOST)
            return {"uses": [used._asdict() for limit in limits for used in await self._top(limit, most)]}
        reset = "reset" in question
        key = str(question["reset" if reset else "show"])
        found, passed_over = places_of(limits, key, folder)
        uses = [self._use(place) for place in found]
        if reset:
            for limit, name in found:
                limit.table.drop(name)
        return {"uses": [each._asdict() for each in uses], "passed_over": passed_over}

    def _use(self, place: Place) -> Use:
        limit, key = place
        used, wait, _ = limit.table.ask(key, "", 1.0, self._clock())
        return use(place, ceil(used - ROUNDING), wait)

    async def _top(self, limit: Limit, most: int) -> list[Use]:
        largest: list[tuple[float, str]] = []
        async for some in self._rows(limit):
            largest = nlargest(most, [*largest, *some])
        return [self._use(Place(limit, key)) for used, key in largest if used > 0]

    async def _rows(self, limit: Limit) -> AsyncIterator[list[tuple[float, str]]]:
        some: list[tuple[float, str]] = []
        for row in limit.table.rows(self._clock()):
            some.append((used_of(row), row[0]))
            if len(some) == _AT_ONCE:
                yield some
                some = []
                await asyncio.sleep(0)
        yield some
