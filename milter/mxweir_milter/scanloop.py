"""The asyncio loop that scans, in a thread of its own, and the bridge to it for threads that must wait.

A front on threads (libmilter) calls `scan` and waits. It waits no longer than
the deadline: the loop keeps it too, but a loop that is stuck cannot.
"""

import asyncio
import concurrent.futures
import threading
import time

from mxweir.deadline import Deadline
from mxweir_milter.message import Message
from mxweir_milter.scanner import Scanner
from mxweir_milter.verdict import Failed, Reason, Result

_GRACE = 0.05
"""Seconds that a waiting thread gives the loop to keep the deadline itself, with the better reason."""

_TURN = 1.0
"""Seconds between two signs of life."""


class ScanLoop:
    """Runs scans. The scanner may be replaced at any time; scans under way finish on the old one."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._turned = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="scans", daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel what is under way, and end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        elif not self._loop.is_closed():
            self._loop.close()

    def silent_for(self) -> float:
        """Seconds since the loop last showed that it turns."""
        return max(0.0, time.monotonic() - self._turned - _TURN)

    def scan(self, message: Message, deadline: Deadline) -> Result:
        """Scan a message, from any thread but the loop's; answers by the deadline."""
        scan = self._scan(message, deadline)
        try:
            future = asyncio.run_coroutine_threadsafe(scan, self._loop)
        except RuntimeError:
            scan.close()
            return Failed(Reason.INTERNAL, detail="the scan loop has stopped")
        try:
            return future.result(deadline.left() + _GRACE)
        except TimeoutError:
            future.cancel()
            return Failed(Reason.DEADLINE, detail="the scan loop did not answer")
        except concurrent.futures.CancelledError:
            return Failed(Reason.INTERNAL, detail="the scan loop has stopped")

    async def _scan(self, message: Message, deadline: Deadline) -> Result:
        self.in_flight += 1
        try:
            return await self.scanner.scan(message, deadline)
        finally:
            self.in_flight -= 1

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._turn()
        try:
            self._loop.run_forever()
            for task in (tasks := asyncio.all_tasks(self._loop)):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            self._loop.close()

    def _turn(self) -> None:
        self._turned = time.monotonic()
        self._loop.call_later(_TURN, self._turn)
