"""What a service owes the system it runs on: sockets, readiness, a clean socket file.

The protocol of sd_notify(3) and sd_listen_fds(3) is a datagram and three
environment variables; a library for it would be longer than this.
"""

import contextlib
import grp
import os
import resource
import socket
import stat
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from mxweir.endpoint import Endpoint, Inet, Unix

BACKLOG = 1024
"""Connections waiting to be accepted: Postfix opens one for each of hundreds of smtpd processes at once."""

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
)
"""An idle connection stays open however long. One whose other host is gone would too, and count against the
bound: the kernel finds it within two minutes. Connections have these options from their listener (tcp(7))."""

_FIRST_FD = 3


class ServiceError(Exception):
    """The daemon cannot start, in words for the operator; what stands in its way may pass."""

    status = 1
    """The daemon's exit status."""


class SettingError(ServiceError):
    """The daemon cannot start with these settings, however often it is tried."""

    status = 2


def notify(message: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager something, such as READY=1; nobody there is no error (sd_notify(3))."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + path[1:] if path.startswith("@") else path)
        sender.send(message.encode())


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often the service manager wants to hear WATCHDOG=1, halved for safety; None if it does not."""
    usec, me = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    wanted = int(usec) if usec.isdigit() and environ.get("WATCHDOG_PID", me) == me else 0
    return wanted / 2_000_000 or None


def inherited(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """Sockets handed over by the service manager, by FileDescriptorName (sd_listen_fds(3)); taken once."""
    taken: dict[str, list[socket.socket]] = {}
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return taken
    for index in range(int(count)):
        listener = socket.socket(fileno=_FIRST_FD + index)
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), False)
        taken.setdefault(names[index] if index < len(names) else "unknown", []).append(listener)
    return taken


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket of ours; `inode` is that of its socket file, 0 where there is none."""

    socket: socket.socket
    endpoint: Endpoint
    inode: int = 0

    def close(self) -> None:
        """Stop listening, and remove the socket file unless another process has put its own there since."""
        if self.inode and isinstance(self.endpoint, Unix):
            with contextlib.suppress(OSError):
                if os.stat(self.endpoint.path).st_ino == self.inode:
                    os.unlink(self.endpoint.path)
        self.socket.close()


def bind(endpoint: Endpoint, mode: int = 0o660, group: str = "") -> Listener:
    """Listen at an address; raises ServiceError in one line.

    A unix socket gets the permissions `mode` and, if named, the `group`. One
    left behind by a dead process is replaced; one that somebody serves is not.
    """
    try:
        if isinstance(endpoint, Inet):
            return _bind_inet(endpoint)
        return _bind_unix(endpoint, mode, group)
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(endpoint, Unix) and not (directory := Path(endpoint.path).parent).is_dir():
            why = f"there is no directory {directory}; make it, writable by the daemon's user"
        raise ServiceError(f"cannot listen at {endpoint}: {why}") from error
    except UnicodeError:
        raise SettingError(f"cannot listen at {endpoint}: that is no name of a host") from None


def allow_files(count: int) -> None:
    """Let the process open that many files, or as many as it may (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )


def endpoint_of(listener: socket.socket) -> Endpoint:
    """Where a socket listens."""
    name = listener.getsockname()
    return Unix(name) if listener.family == socket.AF_UNIX else Inet(name[0], name[1])


def _bind_inet(endpoint: Inet) -> Listener:
    family, _, _, _, address = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in _KEEPALIVE:
            listener.setsockopt(*option)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return Listener(listener, endpoint)


def _bind_unix(endpoint: Unix, mode: int, group: str) -> Listener:
    path = endpoint.path
    gid = _gid(group) if group else -1
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as undo:
        undo.callback(listener.close)
        # Bound with no permissions at all, so that nobody slips in before they are right.
        before = os.umask(0o777)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        # Left behind like this, it would stay in the way of a daemon that is not root.
        undo.callback(os.unlink, path)
        if gid >= 0:  # a unit's filter of system calls may not allow it, even where it changes nothing
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        inode = os.stat(path).st_ino
        undo.pop_all()
    return Listener(listener, endpoint, inode)


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SettingError(f'socket_group = "{group}": there is no such group on this host') from None


def _clear_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ServiceError(f"cannot listen at unix:{path}: a file that is no socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (TimeoutError, BlockingIOError):
            pass  # it is there, and too busy to take us
    raise ServiceError(f"cannot listen at unix:{path}: another process is serving it; stop that first")
