"""One connection, one message, one answer: what all engines have in common.

However an exchange ends, by answer, by error or by being cancelled, the socket
is closed on the spot, and what was not yet sent is dropped. A connection is used
once: it costs tens of microseconds beside a scan of milliseconds, and none is
ever found dead, or half read, by the next message.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_milter.engines.error import EngineError
from mxweir_milter.engines.names import Names
from mxweir_milter.verdict import Reason, Scored

_CONNECT = 1.0
"""Seconds for each address of a host name but the last: one that swallows packets may not take all."""

_PIECE = 65536
"""Bytes of an answer that are read at once."""


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


async def exchange(route: Route, request: Sequence[bytes], reader: Reader, *, half_close: bool) -> Scored:
    """Send a request in its pieces, and give the answer; raises EngineError or OSError.

    With `half_close` our side of the connection is shut down after the request.
    """
    if isinstance(route.endpoint, Unix):
        return await _UnixExchange(route.endpoint.path, request, reader, half_close).answer()
    answer: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
    # An error that nobody waits for any more is none to complain about.
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    made: list[_Exchange] = []

    def make() -> asyncio.Protocol:
        made.append(_Exchange(request, answer, reader, half_close))
        return made[-1]

    try:
        await route.connect(route.endpoint, make)
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

    def __init__(self, path: str, request: Sequence[bytes], reader: Reader, half_close: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._unsent = [memoryview(piece) for piece in request]
        self._reader = reader
        self._half_close = half_close
        self._answer: asyncio.Future[Scored] = self._loop.create_future()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    async def answer(self) -> Scored:
        """Send, and give the answer; raises EngineError or OSError."""
        client = self._socket
        try:
            client.connect(self._path)
            self._loop.add_reader(client, self._receive)
            self._send()
            if self._unsent:
                self._loop.add_writer(client, self._send)
            return await self._answer
        except BlockingIOError:
            raise EngineError(Reason.UNREACHABLE, "it accepts no connections: its backlog is full") from None
        finally:
            self._listen_no_more()
            client.close()

    def _send(self) -> None:
        """Send what the socket takes, and after the last of it shut down."""
        try:
            while self._unsent:
                sent = self._socket.sendmsg(self._unsent)
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.pop(0))
                if self._unsent:
                    self._unsent[0] = self._unsent[0][sent:]
            if self._half_close:
                self._socket.shutdown(socket.SHUT_WR)
            self._loop.remove_writer(self._socket)
        except BlockingIOError:
            pass  # called again when there is room
        except OSError as error:
            self._unsent.clear()
            self._fail(EngineError(Reason.BROKE_OFF, str(error)))

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_PIECE)
            result = self._reader.feed(data) if data else self._reader.end()
        except BlockingIOError:
            return
        except EngineError as error:
            self._fail(error)
        except OSError as error:
            self._fail(EngineError(Reason.BROKE_OFF, str(error)))
        else:
            if result is not None and not self._answer.done():
                self._listen_no_more()
                self._answer.set_result(result)

    def _fail(self, error: EngineError) -> None:
        self._listen_no_more()
        if not self._answer.done():
            self._answer.set_exception(error)

    def _listen_no_more(self) -> None:
        """The loop shall not call again: the answer is there, or not wanted any more."""
        self._loop.remove_writer(self._socket)
        self._loop.remove_reader(self._socket)


class _Exchange(asyncio.Protocol):
    def __init__(
        self, request: Sequence[bytes], answer: "asyncio.Future[Scored]", reader: Reader, half_close: bool
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
