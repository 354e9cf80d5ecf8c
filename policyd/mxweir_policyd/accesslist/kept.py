"""The list on the disk of this host: what it goes by when Redis is down, or when there is none.

A header, a line a record, and an end line with a checksum of all before; written
beside the old file and renamed over it, so that a full disk or a kill at any instant
leaves the old or the new one. Of the processes of one host, one alone writes it: the
one that has the lock.
"""

import contextlib
import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mxweir_policyd.accesslist.record import Record, parse

_FORMAT = "mxweir access 1"


class DamagedError(Exception):
    """The file is not whole; the text says why."""


class Kept(NamedTuple):
    """What a file holds: the records, and of which history they are up to which version."""

    history: str
    version: int
    records: list[Record]


def list_path(state_dir: Path) -> Path:
    """Where the list is kept."""
    return state_dir / "access.list"


def read(path: Path) -> Kept:
    """What the file holds; raises FileNotFoundError, OSError, or DamagedError where it is not whole."""
    *lines, end = path.read_bytes().splitlines(keepends=True) or [b""]
    try:
        header, closing = json.loads(lines[0]), json.loads(end)
        if header["format"] != _FORMAT:
            raise DamagedError(f"written in another format: {header['format']!r}")
        if closing["crc32"] != zlib.crc32(b"".join(lines)) or closing["end"] != len(lines) - 1:
            raise DamagedError("checksum and content differ")
        records = [parse(line.decode().rstrip("\n")) for line in lines[1:]]
        return Kept(str(header["history"]), int(header["version"]), records)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise DamagedError(f"cut off or damaged ({type(error).__name__})") from None


def write(path: Path, held: Kept) -> None:
    """Replace the file; raises OSError, and then the former one is still there."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    content = b"".join(_content(held))
    end = {"end": len(held.records), "crc32": zlib.crc32(content)}
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.write(json.dumps(end).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _content(held: Kept) -> Iterator[bytes]:
    yield json.dumps({"format": _FORMAT, "history": held.history, "version": held.version}).encode() + b"\n"
    for record in held.records:
        yield record.line().encode() + b"\n"


class Writer:
    """Whoever may write the file: one process of this host, until it ends or closes this."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._writing = threading.Lock()

    def chosen(self) -> bool:
        """Whether it is this one, which it becomes if nobody else is; raises OSError."""
        if self._descriptor is None:
            lock = self._path.with_suffix(".lock")
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if not isinstance(error, BlockingIOError):
                    raise
                return False
            self._descriptor = descriptor
        return True

    def write(self, held: Kept) -> None:
        """Write the file, one call after the other; raises OSError."""
        with self._writing:
            write(self._path, held)

    def close(self) -> None:
        """Let others write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
