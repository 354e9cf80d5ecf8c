"""Where log lines leave the process, without ever making it wait.

Whoever reads our stderr may stall: a pager, a full pipe, a stuck log shipper. A
daemon that waited for them would stop answering Postfix. So lines are written
only as far as the reader takes them now; a bounded rest is kept, and what does
not fit is dropped and counted.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import TextIO

Later = Callable[[Callable[[], None]], object]
"""Calls something soon, such as at the end of an event loop's turn."""

_AT_ONCE = 4096
"""Bytes that a pipe takes without blocking once poll(2) says it is ready (PIPE_BUF, pipe(7))."""

_KEPT = 2**20


class Outlet:
    """Takes whole lines, from any thread; with `later`, those of one turn are written together."""

    def __init__(self, stream: TextIO, later: Later | None = None) -> None:
        self._stream = stream
        self._later = later
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._rest = bytearray()
        self.lost = 0
        """Lines dropped since somebody last set this to 0."""
        self._ready = self._poller()

    def write(self, line: str) -> None:
        """Take a line, ended by a newline."""
        if not self._lines and self._later is not None:
            self._later(self.write_out)
        self._lines.append(line)

    def flush(self) -> None:
        """A line is whole."""
        if self._later is None:
            self.write_out()

    def write_out(self) -> None:
        """Write what waits, as far as the reader takes it. A log that cannot be written stops nothing."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            lines, self._lines = self._lines, []
            if self._ready is None:
                self._stream.write("".join(lines))
                self._stream.flush()
                return
            self._keep(lines)
            while self._rest and self._ready():
                end = self._rest.rfind(b"\n", 0, _AT_ONCE) + 1 or _AT_ONCE
                del self._rest[: os.write(self._stream.fileno(), self._rest[:end])]

    def _keep(self, lines: list[str]) -> None:
        text = "".join(lines)
        if len(self._rest) + len(text) < _KEPT:
            self._rest += text.encode("utf-8", "backslashreplace")
            return
        for line in lines:
            if len(self._rest) < _KEPT:
                self._rest += line.encode("utf-8", "backslashreplace")
            else:
                self.lost += 1

    def _poller(self) -> Callable[[], bool] | None:
        """Whether the stream can be written now; None for a stream that is no file of the system."""
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            return None
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return lambda: any(event & select.POLLOUT for _, event in poll.poll(0))
