"""Where a private server may live, and how to reach it: a short path, a free port, a connection."""

import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

from mxweir.endpoint import Endpoint, Inet, Unix

SHARE = "MXWEIR_LAB_SHARE"
"""The environment variable by which runs side by side share out the ports."""

_PORTS = range(10_240, 32_768)
"""Below those that the kernel gives out (ip_local_port_range of Linux begins at 32768): none of these
becomes the near end of somebody's connection, or is given to a server that asks for any port, between
our look at it and our server's start."""

_lot = SystemRandom()
"""Not the common one, which tests seed: two runs would draw the same ports."""

_handed_out = deque[int](maxlen=500)
"""Ports that this process was given last: whoever asks for two must not get one twice."""

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


def connect(endpoint: Endpoint, seconds: float = 20.0) -> socket.socket:
    """A connection to a server; every wait on it ends after that many seconds. Raises OSError."""
    client = socket.socket(socket.AF_UNIX if isinstance(endpoint, Unix) else socket.AF_INET)
    client.settimeout(seconds)
    try:
        client.connect(endpoint.path if isinstance(endpoint, Unix) else (endpoint.host, endpoint.port))
    except OSError:
        client.close()
        raise
    return client


def free_endpoint() -> Inet:
    """An address on the loopback with a free port."""
    return Inet("127.0.0.1", free_port())


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago.

    Another process may take it before the server does; the server then says
    so in its log, which is part of the error that its starter raises. Runs that
    go on side by side do not take it from each other: MXWEIR_LAB_SHARE says of how
    many runs this is which, as `0/2`, and each keeps to ports of its own.
    """
    which, _, of = os.environ.get(SHARE, "0/1").partition("/")
    ours = _PORTS[int(which) :: int(of)]
    while True:
        port = _lot.choice(ours)
        if port not in _handed_out and _is_free(port):
            _handed_out.append(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
