"""How far a long command has come: one line on the terminal, drawn anew a few times a second."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

_EVERY = 0.1
_WIDTH = 30


class Progress:
    """A bar for work of a known size; nothing at all where nobody looks (no terminal).

    `total` and what `at` is given count the same thing, such as bytes of a file.
    """

    def __init__(
        self,
        what: str,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total = what, max(total, 1)
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream is not None and self._stream.isatty()
        self._clock, self._next = clock, 0.0

    def at(self, done: int, note: str = "") -> None:
        """Draw it, if it is time to."""
        if self._shown and self._clock() >= self._next:
            self._next = self._clock() + _EVERY
            share = min(done / self._total, 1.0)
            bar = "#" * int(share * _WIDTH)
            self._draw(f"{self._what} [{bar:{_WIDTH}}] {share:4.0%}  {note}")

    def say(self, what: str) -> None:
        """Put a sentence in its place, while something else takes long."""
        if self._shown:
            self._draw(what)

    def close(self) -> None:
        """Take it away."""
        if self._shown:
            self._draw("")

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()
