"""The cheapest policy server that the daemon's event loop allows: it answers whatever comes, unread.

    python -m mxweir_bench.floor 127.0.0.1:PORT MICROSECONDS

Before each answer it keeps a core busy for that long, as long as the daemon
needs to decide. What a request costs beyond that is the price of sockets and
event loop. Without the wait the price would look much lower than it is for the
daemon: the load generator would never fall asleep, and to wake a sleeper is
the dearest part of sending.
"""

import asyncio
import sys
from time import perf_counter
from typing import cast

try:
    from uvloop import run
except ImportError:
    from asyncio import run  # type: ignore[assignment]


class _Dunno(asyncio.Protocol):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _: bytes) -> None:
        until = perf_counter() + self._seconds
        while perf_counter() < until:
            pass
        self._transport.write(b"action=DUNNO\n\n")


async def _serve(host: str, port: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Dunno(seconds), host, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    where, _, number = sys.argv[1].rpartition(":")
    run(_serve(where, int(number), float(sys.argv[2]) / 1e6))
