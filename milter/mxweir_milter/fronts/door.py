"""The listening socket of a library that wants to open it itself.

libmilter can neither be handed a socket nor be told permissions, leaves its
socket file behind, and looks up from listening only every five seconds. This is
what can be done about it from outside.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mxweir import service
from mxweir.endpoint import Endpoint, Unix


class Door:
    """One address that a library listens at."""

    def __init__(self, listen: Endpoint) -> None:
        self._listen = listen
        self._file = -1

    def open(self, open_socket: Callable[[], None], mode: int, group: str) -> None:
        """Have the library open its socket, and give its file `mode` and `group`.

        A socket of ours is bound first: that clears away a dead one, and finds
        out in one sentence whatever is wrong with the address. Raises
        ServiceError, OSError, and what the library raises.
        """
        service.bind(self._listen, mode, group).close()
        with _no_permissions():
            open_socket()
        if isinstance(self._listen, Unix):
            path = Path(self._listen.path)
            if group:
                shutil.chown(path, group=group)
            path.chmod(mode)
            # Holds on to the file itself: its name may come to belong to a successor, or to nobody.
            self._file = os.open(path, os.O_PATH | os.O_CLOEXEC)

    def unlink(self) -> None:
        """Take the socket file away, unless a successor has put its own there: no new connections by it."""
        if self._file < 0 or not isinstance(self._listen, Unix):
            return
        path = Path(self._listen.path)
        with contextlib.suppress(OSError):
            if path.stat().st_ino == os.fstat(self._file).st_ino:
                path.unlink()

    def knock(self) -> None:
        """Connect to the socket once, so that its library looks up."""
        with contextlib.suppress(OSError):
            if isinstance(self._listen, Unix):
                with socket.socket(socket.AF_UNIX) as visitor:
                    visitor.connect(f"/proc/self/fd/{self._file}")
            else:
                socket.create_connection((self._listen.host, self._listen.port), 1).close()

    def close(self) -> None:
        """Take the file away and let go of it."""
        self.unlink()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def _no_permissions() -> Iterator[None]:
    """New files are for nobody, until they have been given the right mode."""
    before = os.umask(0o777)
    try:
        yield
    finally:
        os.umask(before)
