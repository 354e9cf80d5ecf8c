"""The parent's end of one worker process."""

import asyncio
import contextlib
import itertools
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self, cast

from mxweir.log import LogObserver
from mxweir.metrics import Figures
from mxweir_policyd.workers.messages import (
    Answer,
    Ask,
    Beat,
    Closed,
    Failed,
    Order,
    Question,
    Serving,
    Show,
    Take,
    Taken,
    Told,
    packed,
    received,
)

_LOG_AT_ONCE = 65536


class WorkerEndedError(Exception):
    """The worker ended before it answered."""


class Ears(NamedTuple):
    """Who hears what a worker says."""

    log: LogObserver
    told: Callable[[Told], None]
    serves: Callable[[], None]


class Member:
    """One worker, from `start` until `ended` has returned; both ends of its pipes are in good hands."""

    def __init__(self, process: asyncio.subprocess.Process, handing: socket.socket, ears: Ears) -> None:
        self._process = process
        self._ears = ears
        self._handing = handing
        self._untaken: deque[tuple[bytes, socket.socket]] = deque()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self.serving = False
        """Whether it serves the connections that it is handed."""
        self.open = 0
        """Connections that it was handed, and has not closed."""
        self.handed = 0
        """Connections that it was handed in all."""
        self.silent = 0
        """How often the parent's clock has ticked since it last said something."""
        self.figures: Figures = ()
        """What it has counted, as last heard."""
        self.failed: Failed | None = None
        """Why it could not start."""

    @classmethod
    async def start(cls, ears: Ears) -> Self:
        """Start one, which waits for its configuration and then says when it serves. Raises OSError."""
        handing, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handing.setblocking(False)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(handing.close)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "mxweir_policyd.workers", str(theirs.fileno())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
            )
            undo.pop_all()
        return cls(process, handing, ears)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, order: Order) -> None:
        """Order something."""
        cast("asyncio.StreamWriter", self._process.stdin).write(packed(order))

    async def ask(self, what: Take | Question | Show, seconds: float) -> Any:
        """Order something, and wait for the answer; TimeoutError, WorkerEndedError."""
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self.tell(Ask(number, what))
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._asked[number]

    def hand(self, kind: bytes, connection: socket.socket) -> bool:
        """Hand a connection over; False if it is gone, or takes none now.

        It is kept until it is taken: one that dies before has not read any of it.
        """
        try:
            socket.send_fds(self._handing, [kind], [connection.fileno()])
        except OSError:
            return False
        self._untaken.append((kind, connection))
        self.open += 1
        self.handed += 1
        return True

    def untaken(self) -> Iterator[tuple[bytes, socket.socket]]:
        """The connections that it was handed, and died before it took them."""
        while self._untaken:
            yield self._untaken.popleft()

    def release(self) -> None:
        """Have it drain and end: there will be no more connections."""
        self.serving = False
        self._handing.close()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> int:
        """Hear what it says until it ends; its exit status."""
        passing = asyncio.ensure_future(self._pass_on())
        try:
            await self._listen()
            await passing
            return await self._process.wait()
        finally:
            self.release()
            if self._process.returncode is None:
                self.kill()
                await self._process.wait()
            passing.cancel()
            cast("asyncio.StreamWriter", self._process.stdin).close()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(WorkerEndedError())

    async def _listen(self) -> None:
        reports = cast("asyncio.StreamReader", self._process.stdout)
        hear: dict[type, Callable[[Any], None]] = {
            Serving: self._serves,
            Failed: self._fails,
            Told: self._ears.told,
            Beat: self._beats,
            Taken: self._takes,
            Closed: self._closes,
            Answer: self._answers,
        }
        while (report := await received(reports)) is not None:
            self.silent = 0
            hear[type(report)](report)

    def _serves(self, report: Serving) -> None:
        self.serving = True
        self._ears.serves()

    def _fails(self, report: Failed) -> None:
        self.failed = report

    def _beats(self, report: Beat) -> None:
        self.figures = report.figures
        self._ears.log.add_unwritten(report.unwritten)

    def _takes(self, report: Taken) -> None:
        for _ in range(report.connections):
            self._untaken.popleft()[1].close()

    def _closes(self, report: Closed) -> None:
        self.open -= report.connections

    def _answers(self, report: Answer) -> None:
        answer = self._asked.get(report.number)
        if answer is not None and not answer.done():
            answer.set_result(report.value)

    async def _pass_on(self) -> None:
        """Its log, whole lines at a time; the last one may lack its end."""
        log = self._ears.log.pass_on
        stderr, rest = cast("asyncio.StreamReader", self._process.stderr), b""
        while chunk := await stderr.read(_LOG_AT_ONCE):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            log((whole + newline).decode("utf-8", "backslashreplace"))
        if rest:
            log(rest.decode("utf-8", "backslashreplace") + "\n")
