"""What a daemon on asyncio serves with: the loop, and its listening sockets.

Some of the sockets are the service manager's, which keeps them across our
restarts: a connection that is made meanwhile waits in them. The others are ours.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from mxweir import service
from mxweir.endpoint import Endpoint
from mxweir.events import Observer, Trouble

try:
    from uvloop import new_event_loop
except ImportError:
    new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]

__all__ = ["Listening", "new_event_loop"]

# Since Python 3.13 a closed server removes the socket file, and thereby one that is the service manager's
# to keep across our restart. Those that are ours, service.Listener removes.
_KEEP_SOCKET_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

Take = Callable[[socket.socket], None]
"""Is given an accepted connection, which is its own from then on."""

_AT_ONCE = 64
"""Connections accepted in one turn of the loop."""

_AGAIN_AFTER = 1.0
"""Seconds until accepting is tried again when it failed, such as for want of a file descriptor."""


class Listening:
    """All sockets that one daemon listens at; `names` are the FileDescriptorNames it may be handed."""

    def __init__(
        self, names: Iterable[str], mode: int, group: str, environ: MutableMapping[str, str] = os.environ
    ) -> None:
        self._given = service.inherited(environ)
        self._mode = mode
        self._group = group
        self._listeners: list[service.Listener] = []
        self._servers: list[asyncio.AbstractServer | _Acceptor] = []
        if unknown := self._given.keys() - set(names):
            what = f"sockets were handed over as {', '.join(sorted(unknown))}"
            for listener in (listener for listeners in self._given.values() for listener in listeners):
                listener.close()
            right = f"name them FileDescriptorName={' or '.join(names)} in their socket unit"
            raise service.ServiceError(f"{what}; {right}")

    async def serve(
        self, name: str, endpoints: Iterable[Endpoint], factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Serve the sockets handed over by this name, and of the addresses those that are not among them.

        Raises ServiceError in one line.
        """
        for listener in self._sockets(name, endpoints):
            await self._serve(listener, factory)

    def hand_on(self, name: str, endpoints: Iterable[Endpoint], take: Take, observe: Observer) -> None:
        """Accept at the same sockets as `serve` would, and hand each connection on to be served elsewhere.

        Raises ServiceError in one line.
        """
        self._servers += [_Acceptor(each, take, observe) for each in self._sockets(name, endpoints)]

    def add(self, listener: service.Listener, server: asyncio.AbstractServer) -> None:
        """Close this one, too, when the others are."""
        self._listeners.append(listener)
        self._servers.append(server)

    def close(self) -> None:
        """Take no new connection; those that are open go on."""
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        self._servers.clear()
        self._listeners.clear()

    def _sockets(self, name: str, endpoints: Iterable[Endpoint]) -> list[socket.socket]:
        sockets = list(self._given.get(name, []))
        there = {service.endpoint_of(listener) for listener in sockets}
        for endpoint in endpoints:
            if endpoint not in there:
                ours = service.bind(endpoint, self._mode, self._group)
                self._listeners.append(ours)
                sockets.append(ours.socket)
        return sockets

    async def _serve(self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        loop = asyncio.get_running_loop()
        if listener.family == socket.AF_UNIX:
            server = await loop.create_unix_server(
                factory, sock=listener, backlog=service.BACKLOG, **_KEEP_SOCKET_FILE
            )
        else:
            server = await loop.create_server(factory, sock=listener, backlog=service.BACKLOG)
        self._servers.append(server)


class _Acceptor:
    """Accepts at one socket until it is closed."""

    def __init__(self, listener: socket.socket, take: Take, observe: Observer) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._take = take
        self._observe = observe
        self._pause: asyncio.TimerHandle | None = None
        self._begin()

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()

    def _begin(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._observe(Trouble("connections not accepted", str(error), "error"))
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_AGAIN_AFTER, self._begin)
                return
            self._take(connection)
