"""Scanners that misbehave, each in one way: what the milter must live with.

    with HostileEngine("spamd", Unix("/tmp/x/engine"), Manner.SILENT) as engine:
        ...
        engine.manner = Manner.DRIP  # from the next connection on
        engine.switch(lot)           # to some manner, drawn by a random.Random

The engine runs in a thread of its own. A manner holds for a connection from its
first moment to its last, so that after some switches victims of several are open
at once.
"""

import asyncio
import errno
import random
import select
import socket
import threading
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

from mxweir.endpoint import Endpoint, Unix
from mxweir_ops.lab.answers import PROTOCOLS
from mxweir_ops.lab.manners import RIGHT, UNREAD, Manner, Settings, read_request, treat
from mxweir_ops.lab.process import LabError, Server

__all__ = ["HostileEngine", "Manner"]

_BACKLOG = 1024
_FULL_MILLISECONDS = 250
"""A connection on loopback that is not made within this has met a full backlog."""


class HostileEngine(Server):
    """One engine, from `start()` (or `with`) to `stop()`.

    `protocol` is "spamd" or "rspamd". What `settings` holds (score, seconds,
    patience) may be changed at any time. The counters only grow: `connections`
    accepted, `requests` read to their end, `answers` that were right and sent
    whole, `most_open` at once, `lone_line_feeds` in all that was read.
    """

    def __init__(
        self,
        protocol: str,
        endpoint: Endpoint,
        manner: Manner = Manner.PROMPT,
        *,
        score: float = 0.1,
        seconds: float = 1.0,
        patience: float = 60.0,
    ):
        self.endpoint = endpoint
        self.settings = Settings(PROTOCOLS[protocol], score, seconds, patience)
        self.connections = self.requests = self.answers = self.most_open = self.lone_line_feeds = 0
        self._manner = manner
        self._open: set[asyncio.Task[None]] = set()
        self._fillers: dict[object, socket.socket] = {}
        # Made when it starts.
        self._listener: socket.socket
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="hostile engine", daemon=True)

    @property
    def manner(self) -> Manner:
        """How connections are treated from now on; may be set from any thread."""
        return self._manner

    @manner.setter
    def manner(self, manner: Manner) -> None:
        self._manner = manner
        self._wait_for(self._turn())

    def switch(self, lot: random.Random, among: Iterable[Manner] = Manner) -> Manner:
        """Turn to some manner, drawn by lot, and say which."""
        self.manner = lot.choice(list(among))
        return self.manner

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    def start(self) -> None:
        """Listen; LabError when the address is not to be had."""
        try:
            self._listener = _listen(self.endpoint)
        except OSError as error:
            raise LabError(f"a hostile engine cannot listen at {self.endpoint}: {error.strerror}") from None
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._wait_for(self._turn())

    def stop(self) -> None:
        """Close everything; it does not start again."""
        if self._thread.is_alive():
            self._wait_for(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)

    def _wait_for(self, done: Coroutine[Any, Any, None]) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(done, self._loop).result(60)
        else:
            done.close()

    # In the engine's thread

    def _run(self) -> None:
        with self._listener:
            self._loop.run_forever()
            self._loop.close()

    async def _turn(self) -> None:
        """Accept, or see to it that nobody gets in."""
        if self._manner is Manner.NOT_ACCEPTING:
            self._loop.remove_reader(self._listener)
            self._listener.listen(0)
            while self._finds_place():
                pass
        else:
            self._listener.listen(_BACKLOG)
            self._loop.add_reader(self._listener, self._accept)

    def _finds_place(self) -> bool:
        """Whether one more connection of our own gets into the backlog."""
        filler = socket.socket(self._listener.family)
        filler.setblocking(False)
        # A unix socket is given a name, by which it is known again when it is accepted.
        filler.bind("" if filler.family == socket.AF_UNIX else ("127.0.0.1", 0))
        self._fillers[filler.getsockname()] = filler
        # One that finds no place on TCP stays and goes on knocking: it is among the fillers, too.
        status = filler.connect_ex(self._listener.getsockname())
        connected = select.poll()
        connected.register(filler, select.POLLOUT)
        return status != errno.EAGAIN and bool(connected.poll(_FULL_MILLISECONDS))

    def _accept(self) -> None:
        with suppress(OSError):
            peer, name = self._listener.accept()
            if filler := self._fillers.pop(name, None):
                filler.close()
                peer.close()
                return
            peer.setblocking(False)
            self.connections += 1
            task = self._loop.create_task(self._serve(peer, self._manner))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            # One that is cancelled before it begins has not come to closing it.
            task.add_done_callback(lambda _: peer.close())
            self.most_open = max(self.most_open, len(self._open))

    async def _serve(self, peer: socket.socket, manner: Manner) -> None:
        with peer, suppress(OSError):
            if manner not in UNREAD:
                if (message := await read_request(peer)) is None:
                    return
                self.requests += 1
                self.lone_line_feeds += message.count(b"\n") - message.count(b"\r\n")
            await treat(peer, manner, self.settings)
            self.answers += manner in RIGHT

    async def _close(self) -> None:
        self._loop.remove_reader(self._listener)
        for filler in self._fillers.values():
            filler.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


def _listen(endpoint: Endpoint) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX if isinstance(endpoint, Unix) else socket.AF_INET)
    try:
        listener.setblocking(False)
        if isinstance(endpoint, Unix):
            listener.bind(endpoint.path)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((endpoint.host, endpoint.port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
