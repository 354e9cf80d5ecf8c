"""SpamAssassin's spamd at one address: one connection a message, as spamc does it.

The sending side is shut down after the message (a half-close): with it spamd
answers whatever is wrong with the length or the last line, without it spamd
waits for more until it times out. However a scan ends, by answer, by error or by
being cancelled, the socket is closed on the spot and what was not yet sent is
dropped.
"""

import asyncio
from typing import cast

from mxweir.endpoint import Endpoint, Unix
from mxweir_milter.engines.error import EngineError
from mxweir_milter.engines.spamc import ResponseReader, symbols_request
from mxweir_milter.message import Message
from mxweir_milter.received import prologue
from mxweir_milter.verdict import Reason, Scored


class Spamd:
    """A spamd on a unix socket or TCP port."""

    name = "spamd"

    def __init__(self, address: Endpoint) -> None:
        self.address = address

    async def scan(self, message: Message) -> Scored:
        """Have a message scanned; raises EngineError, or OSError when nobody can be reached."""
        head = prologue(message.client, message.envelope, message.arrived)
        request = symbols_request(head + message.content)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Scored] = loop.create_future()

        def exchange() -> _Exchange:
            return _Exchange(request, answer, ResponseReader(self.name))

        transport: asyncio.Transport
        if isinstance(self.address, Unix):
            transport, _ = await loop.create_unix_connection(exchange, self.address.path)
        else:
            transport, _ = await loop.create_connection(exchange, self.address.host, self.address.port)
        try:
            return await answer
        finally:
            transport.abort()

    def __str__(self) -> str:
        return f"spamd at {self.address}"


class _Exchange(asyncio.Protocol):
    """One request, one response."""

    def __init__(self, request: bytes, answer: asyncio.Future[Scored], reader: ResponseReader) -> None:
        self._request = request
        self._answer = answer
        self._reader = reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sender = cast("asyncio.Transport", transport)
        sender.write(self._request)
        sender.write_eof()
        self._request = b""

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
