"""Keep the counters of a process across a restart.

A snapshot is a text file: a header, then lines of `["limit", [rows]]`, then an
end line with the number of rows and a checksum of all that stands before. It is
written beside the old one and renamed over it, so a full disk or a kill at any
instant leaves the old or the new one; a file that was cut or damaged is
recognised by its end line.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.memory import Row

_FORMAT = "mxweir limits 1"
_ROWS_A_LINE = 500


class SnapshotError(Exception):
    """The file is no whole snapshot; the text says why."""


class Writer:
    """Writes a snapshot bit by bit: `steps` yields between lines, so that a daemon can answer in between."""

    def __init__(self, path: Path, limits: Limits, now: float) -> None:
        self._path = path
        self._limits = limits
        self._now = now

    def steps(self) -> Iterator[Callable[[], object] | None]:
        """Write; raises OSError (a full disk), and then the former snapshot is still there.

        The last step yields what waits for the disk, to be called before going
        on: where other work must not wait for it, in a thread.
        """
        beside = self._path.with_suffix(".new")
        # A file of its own, even if another writer was stopped half-way and has yet to let go of his.
        beside.unlink(missing_ok=True)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                total = 0
                file.write(line := _line({"format": _FORMAT, "now": self._now}))
                check = zlib.crc32(line)
                for name, rows in self._limits.rows(self._now):
                    for some in _batches(rows):
                        line = _line([name, some])
                        file.write(line)
                        check = zlib.crc32(line, check)
                        total += len(some)
                        yield None
                file.write(_line({"end": total, "crc32": check}))
                file.flush()
                yield partial(os.fsync, file.fileno())
            beside.rename(self._path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def write(path: Path, limits: Limits, now: float) -> None:
    """Write a snapshot at once, as at the end of a process."""
    for wait in Writer(path, limits, now).steps():
        if wait is not None:
            wait()


def read(path: Path, limits: Limits, now: float) -> int:
    """Load a snapshot into `limits`; returns how many counters it held.

    Raises FileNotFoundError where there is none, SnapshotError where it is not
    whole: then nothing is loaded.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    try:
        header, *body, end = [json.loads(line) for line in lines]
        saved = float(header["now"])
        if header["format"] != _FORMAT:
            raise SnapshotError(f"written in another format: {header['format']!r}")
        check = 0
        for line in lines[:-1]:
            check = zlib.crc32(line, check)
        if end["crc32"] != check or end["end"] != sum(len(rows) for _, rows in body):
            raise SnapshotError("checksum and content differ")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(f"cut off or damaged ({type(error).__name__})") from None
    elapsed = max(0.0, now - saved)
    for name, rows in body:
        limits.load(name, [(key, value) for key, value in rows], now, elapsed)
    return int(end["end"])


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while some := list(islice(source, _ROWS_A_LINE)):
        yield some


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
