"""Where a private server may live, and how to reach it: a short path, a free port, a connection."""

import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mxweir.endpoint import Endpoint, Inet, Unix

SHARE = "MXWEIR_LAB_SHARE"
"""The environment variable by which runs side by side share out the ports."""

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


def connect(endpoint: Endpoint, seconds: float = 5.0) -> socket.socket:
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
    with ExitStack() as held:
        # Those of others stay taken until ours is found, or they would be handed out again.
        while True:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port // 2 % int(of) == int(which) and port not in _handed_out:
                _handed_out.append(port)
                return port
