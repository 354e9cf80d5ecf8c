"""One connection, one message, one answer: what all engines have in common.

However an exchange ends, by answer, by error or by being cancelled, the socket
is closed on the spot, and what was not yet sent is dropped. A connection is used
once: it costs tens of microseconds beside a scan of milliseconds, and none is
ever found dead, or half read, by the next message.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_milter.engines.error import EngineError
from mxweir_milter.engines.names import Names
from mxweir_milter.sockets import READABLE, WRITABLE, Sockets
from mxweir_milter.verdict import Reason, Scored

_CONNECT = 1.0
"""Seconds for each address of a host name but the last: one that swallows packets may not take all."""

_PIECE = 65536
"""Bytes of an answer that are read at once."""

Pieces = Sequence[bytes | bytearray | memoryview]
"""A request in the order in which it is sent."""


class Reader(Protocol):
    """Takes an answer in pieces of any size."""

    def feed(self, piece: bytes) -> Scored | None:
        """More of it; None as long as it is incomplete. Raises EngineError."""

    def end(self) -> Scored:
        """The engine has closed the connection. Raises EngineError if that was too early."""


@dataclass(frozen=True, slots=True)
class Route:
    """How an engine is reached; `tls` None: in the clear."""

    endpoint: Endpoint
    names: Names
    sockets: Sockets
    tls: ssl.SSLContext | None = None

    async def connect(self, at: Inet, made: "Callable[[], asyncio.Protocol]") -> None:
        """Make a connection with the protocol that `made` makes; raises OSError."""
        loop = asyncio.get_running_loop()
        name = at.host if self.tls else None
        *others, last = await self.names.addresses(at.host)
        for address in others:
            with suppress(OSError):
                async with asyncio.timeout(_CONNECT):
                    await loop.create_connection(made, address, at.port, ssl=self.tls, server_hostname=name)
                    return
        await loop.create_connection(made, last, at.port, ssl=self.tls, server_hostname=name)


def exchange(
    route: Route, request: Pieces, reader: Reader, *, half_close: bool
) -> Coroutine[Any, Any, Scored]:
    """Send a request in its pieces, and give the answer; raises EngineError or OSError.

    With `half_close` our side of the connection is shut down after the request.
    """
    if isinstance(route.endpoint, Unix):
        return _UnixExchange(route.sockets, route.endpoint.path, request, reader, half_close).answer()
    return _exchange(route, route.endpoint, request, reader, half_close)


async def _exchange(route: Route, at: Inet, request: Pieces, reader: Reader, half_close: bool) -> Scored:
    """By a transport of the event loop, which does name and encryption."""
    answer: asyncio.Future[Scored] = route.sockets.loop.create_future()
    # An error that nobody waits for any more is none to complain about.
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    made: list[_Exchange] = []

    def make() -> asyncio.Protocol:
        made.append(_Exchange(request, answer, reader, half_close))
        return made[-1]

    try:
        await route.connect(at, make)
        return await answer
    finally:
        # Cancelled in the moment in which a connection was made, the event loop closes it by itself, but not
        # before all is sent: never, where nobody reads.
        for each in made:
            each.abort()


class _UnixExchange:
    """By a unix socket, which is connected at once or not at all (Linux unix(7)).

    So all is sent before the event loop turns once, and the engine is woken once. A
    transport of the event loop would take a turn to connect, to send and to shut down.
    """

    def __init__(
        self, sockets: Sockets, path: str, request: Pieces, reader: Reader, half_close: bool
    ) -> None:
        self._sockets = sockets
        self._path = path
        self._unsent = request
        self._reader = reader
        self._half_close = half_close
        self._answer: asyncio.Future[Scored] = sockets.loop.create_future()
        self._socket: socket.socket

    async def answer(self) -> Scored:
        """Send, and give the answer; raises EngineError or OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(self._path)
            all_is_sent = self._send()
            self._sockets.watch(
                self._socket.fileno(), READABLE if all_is_sent else READABLE | WRITABLE, self._ready
            )
            return await self._answer
        except BlockingIOError:
            raise EngineError(Reason.UNREACHABLE, "it accepts no connections: its backlog is full") from None
        finally:
            self._close()

    def _send(self) -> bool:
        """Send what the socket takes, and after the last of it shut down; whether that is done."""
        try:
            while self._unsent:
                self._unsent = _left(self._unsent, self._socket.sendmsg(self._unsent))
            if self._half_close:
                self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return False  # called again when there is room
        except OSError as error:
            raise EngineError(Reason.BROKE_OFF, str(error)) from None
        return True

    def _receive(self) -> Scored | None:
        """Read what there is; the answer, when that was the last of it."""
        try:
            data = self._socket.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EngineError(Reason.BROKE_OFF, str(error)) from None
        return self._reader.feed(data) if data else self._reader.end()

    def _ready(self, events: int) -> None:
        try:
            if events & WRITABLE and self._send():
                self._sockets.change(self._socket.fileno(), READABLE)
            result = self._receive() if events & ~WRITABLE else None
        except Exception as error:  # noqa: BLE001 -- of ours, too: at its end a socket stays ready until it is closed
            self._end(error)
        else:
            if result is not None:
                self._end(result)

    def _end(self, result: Scored | Exception) -> None:
        self._close()
        if self._answer.done():  # cancelled, in this very turn of the loop
            return
        if isinstance(result, Scored):
            self._answer.set_result(result)
        else:
            self._answer.set_exception(result)

    def _close(self) -> None:
        self._sockets.forget(self._socket.fileno())
        self._socket.close()


def _left(pieces: Pieces, sent: int) -> Pieces:
    """What is still to be sent, when that many bytes are; of a large message nothing is copied."""
    left: list[bytes | bytearray | memoryview] = []
    for piece in pieces:
        if sent < len(piece):
            left.append(memoryview(piece)[sent:] if sent else piece)
        sent = max(0, sent - len(piece))
    return left


class _Exchange(asyncio.Protocol):
    def __init__(
        self, request: Pieces, answer: "asyncio.Future[Scored]", reader: Reader, half_close: bool
    ) -> None:
        self._request = request
        self._answer = answer
        self._reader = reader
        self._half_close = half_close
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Close the connection, if there is one, and drop what was not yet sent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = sender = cast("asyncio.Transport", transport)
        sender.set_write_buffer_limits(0)
        for piece in self._request:
            sender.write(piece)
        self._request = ()
        if not sender.get_write_buffer_size():
            self.resume_writing()

    def resume_writing(self) -> None:
        """All is sent. Shut down here, and not by the event loop, which has no ear for an error at that."""
        if self._half_close and self._transport is not None:
            with suppress(OSError):
                self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        if self._answer.done():
            return
        try:
            result = self._reader.feed(data)
        except EngineError as error:
            self._answer.set_exception(error)
            return
        if result is not None:
            self._answer.set_result(result)

    def eof_received(self) -> None:
        if self._answer.done():
            return
        try:
            self._answer.set_result(self._reader.end())
        except EngineError as error:
            self._answer.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(EngineError(Reason.BROKE_OFF, str(exc or "connection lost")))
