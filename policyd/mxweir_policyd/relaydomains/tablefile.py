"""An LMDB file that is opened to be written: made where it lacks, looked through, put aside when damaged."""

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from mmap import PAGESIZE
from pathlib import Path

import lmdb

from mxweir.domains.damage import check_whole
from mxweir.domains.reader import MAP_SIZE
from mxweir.service import ServiceError

_LOCK_SIZE = 64 * 1024
"""Bytes of the lock file, which LMDB takes as room for a thousand readers."""

_HEADER = 2 * PAGESIZE


class ReplicaError(ServiceError):
    """The table cannot be used; the text says what, where and what to do."""


class DamagedError(ReplicaError):
    """The file is no table, or not all of one."""


def open_table(path: Path, databases: int = 0) -> lmdb.Environment:
    """Open or make the table with room for that many named databases. Raises ReplicaError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        return _open(path, databases)
    except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError):
        what = "is damaged; mxweir policyd puts it aside when it starts, and begins a new one"
        raise DamagedError(f"{path}: {what}") from None
    except (lmdb.Error, OSError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        whose = "; it must belong to the daemons' user" if why.endswith(os.strerror(errno.EACCES)) else ""
        raise ReplicaError(f"{path}: cannot be opened: {why.removeprefix(f'{path}: ')}{whose}") from None


def free_places(environment: lmdb.Environment) -> None:
    """Give the places of readers that were killed to others; call it now and then.

    There are a thousand, and without one nobody can read; what such a reader last read keeps its room, too.
    """
    with contextlib.suppress(lmdb.Error):
        environment.reader_check()


class Overwritten:
    """Whether another file was written over the open one, as by cp: the lock file has another transaction.

    During a commit it has the former one, and keeps it where the writer was killed just then: that is none.
    """

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None

    def look(self, environment: lmdb.Environment) -> bool:
        """Call it every second or so."""
        former, self._seen = self._seen, None
        with contextlib.suppress(lmdb.Error), environment.begin() as read:
            told = read.id(), int(environment.info()["last_txnid"])
            self._seen = told if told[1] - told[0] not in (0, 1) else None
        return self._seen is not None and self._seen == former


def put_aside(path: Path) -> Path:
    """Keep a damaged table under another name, for whoever wants to see. Raises ReplicaError."""
    try:
        return path.rename(path.with_suffix(".broken"))
    except OSError as error:
        raise ReplicaError(f"{path}: cannot be put aside: {error.strerror}") from None


@contextlib.contextmanager
def writing(environment: lmdb.Environment, path: Path) -> Iterator["lmdb.Transaction[bytes]"]:
    """A change, in force as a whole when the block ends and not at all if it raises. Raises ReplicaError."""
    try:
        with _not_stopping(), environment.begin(write=True) as write:
            yield write
    except lmdb.MapFullError:
        raise ReplicaError(f"{path}: the table has reached its largest size") from None
    except lmdb.Error as error:
        raise ReplicaError(f"{path}: not changed: {error}") from None


def _open(path: Path, databases: int) -> lmdb.Environment:
    _allocate_lock(path)
    new = not path.exists()
    try:
        environment = lmdb.open(str(path), subdir=False, map_size=MAP_SIZE, mode=0o660, max_dbs=databases)
    except lmdb.Error:
        if new and path.exists() and path.stat().st_size < _HEADER:
            path.unlink()  # half a beginning, for want of room, would be taken for damage
        raise
    with contextlib.ExitStack() as undo:
        undo.callback(environment.close)
        with environment.begin() as read:
            empty = not read.stat()["entries"]
        if not empty:
            check_whole(path, MAP_SIZE)
        environment.reader_check()
        undo.pop_all()
    return environment


def _allocate_lock(table: Path) -> None:
    """Give the lock file its place on the disk; raises OSError when that is full.

    LMDB makes it with a hole for the whole of it, and the process would die
    (SIGBUS) as it fills the hole on a full disk. The table itself is written.
    """
    lock = os.open(f"{table}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        if os.fstat(lock).st_size < _LOCK_SIZE:
            os.posix_fallocate(lock, 0, _LOCK_SIZE)
    finally:
        os.close(lock)


@contextlib.contextmanager
def _not_stopping() -> Iterator[None]:
    """A Ctrl-Z waits: no other process can change the table while this one has LMDB's lock."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
