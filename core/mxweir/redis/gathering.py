"""A connection on which all calls of one turn of the loop leave in one write.

In a Cluster each question is several small calls, and those of many questions are made
in the same turn. The write of each would cost us a system call, and Redis a reading.
"""

import asyncio
from typing import cast

from mxweir.redis.wire import Link


class GatheringLink(Link):
    """A connection that sends at the end of the turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio has it."""
        super().connection_made(_Gathering(cast(asyncio.Transport, transport)))


class _Gathering(asyncio.Transport):
    """What a link needs of a transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._written:
            self._loop.call_soon(self._flush)
        self._written.append(bytes(data))

    def abort(self) -> None:
        self._transport.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def _flush(self) -> None:
        written, self._written = self._written, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(written))
