"""A service manager as a daemon sees it: it holds listening sockets and hands them over at each start."""

import grp
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

# What systemd does between fork and exec: the sockets are 3 and up, and LISTEN_PID is the daemon's own.
_HAND_OVER = """
import fcntl, os, sys
count = int(sys.argv[1])
numbers = list(map(int, sys.argv[2:2 + count]))
held = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
for number in numbers:
    os.close(number)  # else the daemon's own processes would have it as well
for target, source in enumerate(held, start=3):
    os.dup2(source, target)
    os.close(source)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class Manager:
    """Sockets by their FileDescriptorName, from `listen` to `close`."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def listen(self, name: str, path: Path, group: str = "") -> None:
        """Hold a unix socket; a group may connect to it."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
            path.chmod(0o660)
        listener.listen(1024)
        self._sockets[name] = listener

    def close(self) -> None:
        """Let go of all."""
        for listener in self._sockets.values():
            listener.close()
        self._sockets.clear()

    def argv(self, argv: Iterable[str]) -> list[str]:
        """The command line that is handed the sockets; its process must inherit `numbers`."""
        numbers = [str(number) for number in self.numbers]
        return [sys.executable, "-c", _HAND_OVER, str(len(numbers)), *numbers, *argv]

    @property
    def numbers(self) -> list[int]:
        """The sockets as files."""
        return [listener.fileno() for listener in self._sockets.values()]

    @property
    def environment(self) -> Mapping[str, str]:
        """What the command must find in its environment."""
        return {"LISTEN_FDS": str(len(self._sockets)), "LISTEN_FDNAMES": ":".join(self._sockets)}
