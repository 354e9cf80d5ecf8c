"""From threads that must wait (libmilter's) to the loop that scans.

A thread waits no longer than the deadline: the loop keeps it too, but a loop that
is stuck cannot.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any

from mxweir.deadline import Deadline
from mxweir_milter.message import Message
from mxweir_milter.verdict import Failed, Reason, Result

Scan = Callable[[Message, Deadline], Coroutine[Any, Any, Result]]

_GRACE = 0.05
"""Seconds that a waiting thread gives the loop to keep the deadline itself, with the better reason."""


class Bridge:
    """Runs scans on a loop."""

    def __init__(self, scan: Scan, loop: asyncio.AbstractEventLoop) -> None:
        self._scan = scan
        self._loop = loop

    def scan(self, message: Message, deadline: Deadline) -> Result:
        """Scan a message, from any thread but the loop's; answers by the deadline."""
        scan = self._scan(message, deadline)
        try:
            future = asyncio.run_coroutine_threadsafe(scan, self._loop)
        except RuntimeError:
            scan.close()
            return Failed(Reason.INTERNAL, detail="the loop has stopped")
        try:
            return future.result(deadline.left() + _GRACE)
        except TimeoutError:
            future.cancel()
            return Failed(Reason.DEADLINE, detail="the loop did not answer")
        except concurrent.futures.CancelledError:
            return Failed(Reason.INTERNAL, detail="the loop has stopped")
