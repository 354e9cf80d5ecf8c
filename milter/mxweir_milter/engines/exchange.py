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

    async def connect(self, made: "Callable[[], asyncio.Protocol]") -> asyncio.Transport:
        """A connection with the protocol that `made` makes; raises EngineError or OSError."""
        if isinstance(self.endpoint, Unix):
            return await _unix(self.endpoint.path, made)
        return await self._inet(self.endpoint, made)

    async def _inet(self, at: Inet, made: "Callable[[], asyncio.Protocol]") -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        name = at.host if self.tls else None
        *others, last = await self.names.addresses(at.host)
        for address in others:
            with suppress(OSError):
                async with asyncio.timeout(_CONNECT):
                    return (
                        await loop.create_connection(
                            made, address, at.port, ssl=self.tls, server_hostname=name
                        )
                    )[0]
        return (await loop.create_connection(made, last, at.port, ssl=self.tls, server_hostname=name))[0]


async def _unix(path: str, made: "Callable[[], asyncio.Protocol]") -> asyncio.Transport:
    """Connect to a unix socket, which happens at once or not at all (Linux unix(7)).

    asyncio takes EAGAIN, a full backlog, for a connection on its way and then for
    one that is there: it is given a socket that is connected. uvloop is not. It
    would close the descriptor behind the socket object's back where a connection
    breaks off in its first turn, and the garbage collector would close it once
    more, when it may be another one's.
    """
    loop = asyncio.get_running_loop()
    try:
        if isinstance(loop, asyncio.SelectorEventLoop):
            return (await loop.create_unix_connection(made, sock=_connected(path)))[0]
        return (await loop.create_unix_connection(made, path))[0]
    except BlockingIOError:
        raise EngineError(Reason.UNREACHABLE, "it accepts no connections: its backlog is full") from None


def _connected(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.setblocking(False)
        client.connect(path)
    except BaseException:
        client.close()
        raise
    return client


async def exchange(route: Route, request: Sequence[bytes], reader: Reader, *, half_close: bool) -> Scored:
    """Send a request in its pieces, and give the answer; raises EngineError or OSError.

    With `half_close` our side of the connection is shut down after the request.
    """
    answer: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
    # An error that nobody waits for any more is none to complain about.
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    made: list[_Exchange] = []

    def make() -> asyncio.Protocol:
        made.append(_Exchange(request, answer, reader, half_close))
        return made[-1]

    try:
        await route.connect(make)
        return await answer
    finally:
        # Cancelled in the moment in which a connection was made, the event loop closes it by itself, but not
        # before all is sent: never, where nobody reads.
        for each in made:
            each.abort()


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
