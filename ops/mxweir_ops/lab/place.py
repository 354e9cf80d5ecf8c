"""Where a private server may live: a directory with a short path, and ports nobody uses."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST_BASE = 30
"""Bytes of a base directory that leave room for "/mxweir-12345678/spool/private/…" in a unix
socket's 107."""

_SHORT_BASE = "/tmp"  # noqa: S108 - mkdtemp makes a directory of its own in it


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A new directory that other users may enter, removed with all it holds at the end.

    The servers inside run as different users (root, postfix, debian-spamd) and
    meet at unix sockets, so 0700, the usual mode, would keep them apart. What
    must stay private inside gets its own mode.
    """
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST_BASE else _SHORT_BASE
    path = Path(tempfile.mkdtemp(prefix="mxweir-", dir=base))
    path.chmod(0o755)
    try:
        yield path
    finally:
        # A server that was killed may still be writing its last file.
        for _ in range(3):
            with suppress(OSError):
                shutil.rmtree(path)
            if not path.exists():
                break


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago.

    Another process may take it before the server does; the server then says
    so in its log, which is part of the error that its starter raises.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
