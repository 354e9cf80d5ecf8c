"""The worker's end: a process that answers on the connections that it is handed."""

import asyncio
import gc
import itertools
import os
import socket
import sys
from functools import partial
from typing import Any

from mxweir.background import Work, go_on
from mxweir.clock import system_clock
from mxweir.config import Config
from mxweir.events import Decided, Handlers, Trouble, tell_all
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir.service import ServiceError
from mxweir.serving import new_event_loop
from mxweir_policyd.worker import Worker
from mxweir_policyd.workers.domains import SharedDomains
from mxweir_policyd.workers.messages import (
    POLICY,
    Answer,
    Ask,
    Beat,
    Begin,
    Closed,
    Domains,
    Failed,
    Question,
    Serving,
    Show,
    Take,
    Taken,
    received,
)
from mxweir_policyd.workers.reports import LINES, Reports, Tally, Telling

_BEAT_EVERY = 1.0

_AT_ONCE = 64
"""Connections that are taken in one turn of the loop."""


def main() -> None:
    """Serve until there will be no more connections."""
    connections = socket.socket(fileno=int(sys.argv[1]))
    connections.setblocking(False)
    orders, reports = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints something goes to the log, and not between the reports
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        sys.exit(runner.run(_serve(connections, orders, reports)))


async def _serve(connections: socket.socket, orders: Any, reports: Any) -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), orders)
    outgoing = Reports()
    await loop.connect_write_pipe(lambda: outgoing, reports)
    begin = await received(reader)
    status = 0
    if isinstance(begin, Begin):  # else the parent is gone
        try:
            await Process(begin, connections, outgoing).run(reader)
        except (ServiceError, OSError) as error:
            status = getattr(error, "status", 1)
            outgoing.send(Failed(str(error), status))
    await outgoing.end()
    return status


class Process:
    """Wires a worker; raises ServiceError when it cannot serve."""

    def __init__(self, begin: Begin, connections: socket.socket, reports: Reports) -> None:
        config = begin.config
        clock = system_clock()
        self._drain_time = config.policyd.drain
        self._connections = connections
        self._reports = reports
        self._log = LogObserver(
            config.log,
            clock,
            "policyd",
            later=lambda write: asyncio.get_running_loop().call_soon(write),
            sums_up=False,
        )
        self._metrics = Metrics("policyd")
        self._telling = Telling(reports)
        lines: Handlers = {kind: write for kind, write in self._log.handlers().items() if kind in LINES}
        counted = {
            kind: count
            for kind, count in PolicyMetrics(self._metrics).handlers().items()
            if kind is not Trouble  # which the parent counts
        }
        self._observe = tell_all(counted, lines, self._telling.handlers())
        self._domains = SharedDomains(config, begin.domains, self._observe, self._metrics)
        self._worker = Worker(
            config, self._domains, clock, self._observe, self._metrics, tell_each=Decided in lines
        )
        self._worker.sessions.closed = self._close
        self._taken, self._closed = Tally(reports, Taken), Tally(reports, Closed)
        self._taking = set[asyncio.Task[Any]]()
        self._ended = asyncio.Event()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve until there will be no more connections; then drain."""
        loop = asyncio.get_running_loop()
        self._worker.allow_files()
        await self._worker.prepare()
        works: tuple[Work, ...] = (self._tick, *self._worker.asking(), lambda: self._obey(orders))
        background = [loop.create_task(go_on(work, self._observe)) for work in works]
        loop.add_reader(self._connections, self._take)
        gc.freeze()
        self._reports.send(Serving())
        await self._ended.wait()
        await asyncio.gather(*self._taking, return_exceptions=True)
        await self._worker.drain(self._drain_time)
        for task in background:
            task.cancel()
        self._flush()
        await self._worker.end(served=False)  # the counters in the process are not kept: Redis has them
        self._domains.close()
        self._log.close()

    # Connections

    def _take(self) -> None:
        """Take what is handed over. That it is taken is told before any of it is read."""
        self._taken.count += sum(
            1 for _ in itertools.takewhile(bool, (self._take_one() for _ in range(_AT_ONCE)))
        )
        self._taken.report()

    def _take_one(self) -> bool:
        try:
            kind, files, _flags, _address = socket.recv_fds(self._connections, 1, 1)
        except BlockingIOError:
            return False
        except OSError:
            kind, files = b"", []
        if not kind:
            asyncio.get_running_loop().remove_reader(self._connections)
            self._ended.set()
            return False
        if files:
            task = asyncio.ensure_future(self._adopt(kind, socket.socket(fileno=files[0])))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)
        else:  # there was no descriptor free to receive it
            self._observe(Trouble("connections not accepted", "Too many open files", "error"))
            self._close()
        return True

    async def _adopt(self, kind: bytes, connection: socket.socket) -> None:
        connection.setblocking(False)
        session = self._worker.policy_session if kind == POLICY else self._worker.map_session
        try:
            await asyncio.get_running_loop().connect_accepted_socket(session, connection)
        except OSError:  # it was closed meanwhile
            connection.close()
            self._close()

    def _close(self) -> None:
        if not self._closed.count:
            asyncio.get_running_loop().call_soon(self._closed.report)
        self._closed.count += 1

    # Orders

    async def _obey(self, orders: asyncio.StreamReader) -> None:
        while (order := await received(orders)) is not None:
            if isinstance(order, Domains):
                self._domains.changed(order)
            elif isinstance(order, Ask):
                task = asyncio.ensure_future(go_on(partial(self._answer, order), self._observe))
                self._taking.add(task)
                task.add_done_callback(self._taking.discard)

    async def _answer(self, ask: Ask) -> None:
        value: Any = None
        if isinstance(ask.what, Show):
            value = self._metrics.figures()
        elif isinstance(ask.what, Question):
            value = await self._worker.answer(ask.what.line)
        elif isinstance(ask.what, Take):
            await self._reconfigure(ask.what.config)
        self._reports.send(Answer(ask.number, value))

    async def _reconfigure(self, config: Config) -> None:
        self._drain_time = config.policyd.drain
        await self._worker.take(config)
        self._domains.take(config)

    # What is told

    async def _tick(self) -> None:
        while True:
            self._worker.tick()
            self._domains.tick()
            self._log.tick()
            self._flush()
            await asyncio.sleep(_BEAT_EVERY)

    def _flush(self) -> None:
        self._telling.tick()
        self._taken.report()
        self._closed.report()
        self._reports.send(Beat(self._metrics.figures(), self._log.take_unwritten()))
