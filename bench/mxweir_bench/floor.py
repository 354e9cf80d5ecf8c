"""The cheapest policy server that the daemon's event loop allows: it answers whatever comes, unread.

    python -m mxweir_bench.floor 127.0.0.1:PORT

What it takes for a request is the price of the sockets and the event loop; no
Python code of ours could be under it.
"""

import asyncio
import sys
from typing import cast

try:
    from uvloop import run
except ImportError:
    from asyncio import run  # type: ignore[assignment]


class _Dunno(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _: bytes) -> None:
        self._transport.write(b"action=DUNNO\n\n")


async def _serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Dunno, host, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    where, _, number = sys.argv[1].rpartition(":")
    run(_serve(where, int(number)))
