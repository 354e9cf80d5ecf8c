"""A TCP connection that goes wrong: between a client and a server that knows nothing of it."""

import asyncio
import threading
from contextlib import suppress

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_ops.lab.process import LabError, Server

_READ = 65536


class Proxy(Server):
    """Passes on what it gets at `endpoint`; how, may be changed at any time, for open connections too."""

    def __init__(self, target: Endpoint):
        self._target = target
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        # Made when it starts.
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self.endpoint = Inet("127.0.0.1", 0)
        self.delay = 0.0
        """Seconds that each answer takes longer."""
        self.nonsense = b""
        """What is said instead of each answer, if anything."""
        self.forgotten = 0
        """Of the first that many connections, nothing is passed on any more, and nobody is told."""
        self.accepted = 0
        """How many connections there have been."""

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        if not self._ready.wait(10.0):
            raise LabError("the proxy does not listen")

    def stop(self) -> None:
        """End it, and all its connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def forget(self) -> None:
        """Forget all connections, as a firewall does that is restarted; new ones are passed on."""
        self.forgotten = self.accepted

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.endpoint = Inet("127.0.0.1", server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports, which end a turn of the loop later

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._tasks.add(task)
        self.accepted += 1
        number = self.accepted
        try:
            far, forth = await self._connect()
            try:
                await asyncio.gather(self._forth(near, forth, number), self._back(far, back, number))
            finally:
                forth.close()
        except OSError:
            pass
        finally:
            back.close()
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Unix):
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.host, self._target.port)

    async def _forth(self, near: asyncio.StreamReader, forth: asyncio.StreamWriter, number: int) -> None:
        while data := await near.read(_READ):
            if number > self.forgotten:
                forth.write(data)
        forth.close()

    async def _back(self, far: asyncio.StreamReader, back: asyncio.StreamWriter, number: int) -> None:
        while data := await far.read(_READ):
            if number > self.forgotten:
                self._loop.call_later(self.delay, self._say, back, self.nonsense or data)
        back.close()

    @staticmethod
    def _say(back: asyncio.StreamWriter, data: bytes) -> None:
        with suppress(OSError):
            if not back.is_closing():
                back.write(data)
