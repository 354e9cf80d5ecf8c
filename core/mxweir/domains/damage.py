"""Is an LMDB file whole? Another process reads all of it, and may die of it.

LMDB trusts its file: in one that was cut off or overwritten, as after a power
cut, it may end the process that reads. A million domains take less than 0.1 s.
"""

import signal
import subprocess
import sys
from pathlib import Path

import lmdb

_DAMAGED = 3
_WALK = f"""
import lmdb, os, sys
try:
    table = lmdb.open(sys.argv[1], subdir=False, readonly=True, map_size=int(sys.argv[2]))
    table.copyfd(os.open(os.devnull, os.O_WRONLY), compact=True)
except (lmdb.CorruptedError, lmdb.PageNotFoundError):
    sys.exit({_DAMAGED})
"""
_DEATHS = (-signal.SIGABRT, -signal.SIGBUS, -signal.SIGSEGV)
"""What LMDB dies of in a damaged file: a failed assertion, a page behind its end, a page full of nonsense."""


def check_whole(path: Path, map_size: int) -> None:
    """Raise lmdb.CorruptedError if a page is missing or not what it should be.

    The other process takes LMDB's lock like any reader, for a third may be
    changing the file. If it cannot read, nothing is known to be wrong.
    """
    walk = [sys.executable, "-P", "-c", _WALK, str(path), str(map_size)]
    try:
        done = subprocess.run(walk, check=False, capture_output=True, timeout=300)  # noqa: S603 - our own code
    except (OSError, subprocess.SubprocessError):
        return
    if done.returncode == _DAMAGED or done.returncode in _DEATHS:
        raise lmdb.CorruptedError(f"{path}: damaged")
