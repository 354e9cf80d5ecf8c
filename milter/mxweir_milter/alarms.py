"""Many deadlines, of which hardly any is ever reached, on one timer of the event loop.

A timer of its own for each message costs the loop more than the message's place in
a table here: alarms are kept in slots of a few milliseconds, and the loop's timer is
set to the first slot. To set an alarm, and to take it back, is to put it into a
dict and to remove it. An alarm goes off up to a slot late by the loop's clock, and
never early.
"""

import asyncio
from collections.abc import Callable
from functools import cached_property
from heapq import heappop, heappush
from types import TracebackType
from typing import cast

_SLOT = 0.01
"""Seconds: what an alarm may be late."""


class Alarm:
    """Something to be called once, unless it is taken back before."""

    __slots__ = ("_call", "_slot")

    def __init__(self, call: Callable[[], object], slot: "dict[Alarm, None]") -> None:
        self._call = call
        self._slot = slot
        slot[self] = None

    def cancel(self) -> None:
        """Take it back; nothing happens where it has gone off."""
        self._slot.pop(self, None)

    def ring(self) -> None:
        """Its time has come."""
        self._call()


class Alarms:
    """Those of one event loop, the one that runs when they are set."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[Alarm, None]] = {}
        self._numbers: list[int] = []
        """Those of the slots, as a heap."""
        self._timer: asyncio.TimerHandle | None = None
        self._first = 0
        """The slot that the timer is set to."""

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop. To ask which one runs takes a call of the kernel each time (in Python 3.11)."""
        return asyncio.get_running_loop()

    def after(self, seconds: float, call: Callable[[], object]) -> Alarm:
        """Have something called in so many seconds."""
        number = int((self.loop.time() + seconds) / _SLOT) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heappush(self._numbers, number)
            if self._timer is None or number < self._first:
                self._set(number)
        return Alarm(call, slot)

    def limit(self, seconds: float) -> "Limit":
        """What `asyncio.timeout` is: a context that raises TimeoutError, but on these alarms."""
        return Limit(self, seconds)

    def _set(self, first: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._first = first
        self._timer = self.loop.call_at(first * _SLOT, self._ring)

    def _ring(self) -> None:
        last = max(self._first, int(self.loop.time() / _SLOT))
        due = []
        while self._numbers and self._numbers[0] <= last:
            due.append(self._slots.pop(heappop(self._numbers)))
        self._timer = None
        if self._numbers:
            self._set(self._numbers[0])
        for slot in due:
            for alarm in tuple(slot):
                if alarm in slot:  # one before it may have taken it back
                    alarm.cancel()
                    _ring_one(self.loop, alarm)


def _ring_one(loop: asyncio.AbstractEventLoop, alarm: Alarm) -> None:
    """A fault of one is told as the loop tells those of its own timers, and keeps no other from ringing."""
    try:
        alarm.ring()
    except Exception as error:  # noqa: BLE001
        loop.call_exception_handler({"message": "an alarm has failed", "exception": error})


class Limit:
    """The time that a part of the running task may take; see `Alarms.limit`."""

    def __init__(self, alarms: Alarms, seconds: float) -> None:
        self._alarms = alarms
        self._seconds = seconds
        self._reached = False
        self._alarm: Alarm
        self._task: asyncio.Task[object]
        self._cancelled_before = 0

    def __enter__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task(self._alarms.loop))  # it is in some
        self._cancelled_before = self._task.cancelling()
        self._alarm = self._alarms.after(self._seconds, self._reach)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        del self._alarm  # they know each other: nothing shall be left to the garbage collector
        # Somebody else may have cancelled the task in the same moment: that goes first.
        if (
            self._reached
            and self._task.uncancel() <= self._cancelled_before
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _reach(self) -> None:
        self._reached = True
        self._task.cancel()
