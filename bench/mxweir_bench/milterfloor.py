"""The cheapest milter that the daemon's event loop allows: it answers in the same places, and reads nothing.

    python milterfloor.py /path

What a message costs it is the price of sockets and event loop.
"""

import asyncio
import os
import sys
from typing import cast

from mxweir.serving import new_event_loop

_AGREED = (0x31, 0x19F5C0)
"""What mxweir agrees on: its actions; the steps left out or without an answer, and skipping."""

_NEGOTIATE, _QUIT, _SILENT = ord("O"), ord("Q"), frozenset(b"DCHMRTLNBAK")
_ANSWERS = {ord("E"): b"\0\0\0\1a"}


class _Accept(asyncio.Protocol):
    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        position = 0
        while len(data) - position >= 5:
            after = position + 4 + int.from_bytes(data[position : position + 4])
            if after > len(data):
                break
            self._take(data[position + 4], data[position + 5 : position + 17])
            position = after
        self._held = data[position:]

    def _take(self, letter: int, data: bytes) -> None:
        if letter == _NEGOTIATE:
            actions, steps = (number.to_bytes(4) for number in _AGREED)
            self._transport.write(b"\0\0\0\x0dO" + data[:4] + actions + steps)
        elif letter == _QUIT:
            self._transport.close()
        elif letter not in _SILENT:
            self._transport.write(_ANSWERS.get(letter, b"\0\0\0\1c"))


async def _serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_Accept, path, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    os.umask(0)  # Postfix is another user
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(sys.argv[1]))
