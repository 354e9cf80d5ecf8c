"""Several daemons as one program in the foreground.

For a development run, a container, a host without a service manager. Each
daemon is a child process in a process group of its own, so that a Ctrl-C at the
terminal reaches the supervisor alone and every child is stopped once, in order.

A child that dies is started again, at once the first time and then after pauses
that double up to half a minute; a child that has lived for a minute has earned a
new count. One whose first start ends with status 1 or 2 within a minute could not
start (an address is taken, the configuration has a mistake): whoever has just
called us is there to mend it, so everything stops, with the same status.

The stdin of every child is a pipe on which nothing comes, and which ends with the
supervisor, however that ends: who is told to end with stdin is not left behind.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mxweir.events import Notice, Observer, Trouble

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LONG_LIFE = 60.0

_CANNOT_START = (1, 2)
_LOOK_EVERY = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def next_pause(pause: float, lived: float) -> float:
    """Seconds to wait before a child that lived that many seconds is started again.

    `pause` is what was waited before its last start, 0 for a first one.
    """
    if lived >= LONG_LIFE or not pause:
        return FIRST_PAUSE
    return min(2 * pause, LONGEST_PAUSE)


@dataclass(slots=True)
class _Child:
    name: str
    argv: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0

    def start(self, stdin: int) -> None:
        self.process = subprocess.Popen(self.argv, stdin=stdin, process_group=0)  # noqa: S603 - our own program
        self.started = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    @property
    def due(self) -> float:
        """Seconds until the next start."""
        return max(0.0, self.started + self.pause - time.monotonic())


class Supervisor:
    """Runs the named command lines until SIGTERM or SIGINT.

    `drain` is how many seconds a child may take to end before it is killed.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], drain: float, tell: Observer):
        self._children = [_Child(name, argv) for name, argv in commands.items()]
        self._drain = drain
        self._tell = tell
        self._stdin = -1

    def run(self, tick: Callable[[], None] = lambda: None) -> int:
        """Serve until told to stop; 0 after a clean stop, else 1, or 2 when a configuration was refused.

        `tick` is called every second or so. SIGHUP is passed on.
        """
        with _signals() as arrived, _silent_pipe() as self._stdin:
            try:
                for child in self._children:
                    child.start(self._stdin)
                return self._serve(arrived, tick)
            finally:
                self._kill_what_is_left()

    def _serve(self, arrived: Callable[[float], set[signal.Signals]], tick: Callable[[], None]) -> int:
        at_terminal = _has_terminal()
        while True:
            numbers = arrived(self._patience())
            if numbers & {signal.SIGTERM, signal.SIGINT} or (
                # A terminal that is closed sends SIGHUP too, and means something else by it.
                signal.SIGHUP in numbers and at_terminal and not _has_terminal()
            ):
                return self._stop(arrived)
            if signal.SIGHUP in numbers:
                self._send_all(signal.SIGHUP)
            tick()
            for child in self._children:
                if status := self._look_after(child):
                    self._stop(arrived)
                    return status

    def _patience(self) -> float:
        return min([_LOOK_EVERY, *(child.due for child in self._children if child.process is None)])

    def _look_after(self, child: _Child) -> int:
        """Start it again where that is due; the status with which it could not even start once, else 0."""
        if child.process is None:
            if not child.due:
                self._start_again(child)
            return 0
        status = child.process.poll()
        if status is None:
            return 0
        lived = time.monotonic() - child.started
        hopeless = status in _CANNOT_START and not child.pause and lived < LONG_LIFE
        child.process = None
        child.pause, child.started = next_pause(child.pause, lived), time.monotonic()
        outlook = "stopping the others" if hopeless else f"starting again in {child.pause:g} s"
        self._tell(Trouble(f"{child.name} ended", f"{_told(status)} after {lived:.1f} s; {outlook}", "error"))
        return status if hopeless else 0

    def _start_again(self, child: _Child) -> None:
        try:
            child.start(self._stdin)
        except OSError as error:
            # No memory or no process to spare is no reason to stop the others.
            child.pause, child.started = next_pause(child.pause, 0.0), time.monotonic()
            self._tell(Trouble(f"{child.name} not started", f"{error}; again in {child.pause:g} s", "error"))

    def _stop(self, arrived: Callable[[float], set[signal.Signals]]) -> int:
        """Have every child drain and end; 0 when each did so by itself and cleanly."""
        self._tell(Notice("stopping", {"seconds": self._drain}))
        self._send_all(signal.SIGTERM)
        end = time.monotonic() + self._drain
        while any(self._runs(child) for child in self._children):
            if (left := end - time.monotonic()) <= 0:
                break
            arrived(min(left, _LOOK_EVERY))
        return max([0, *(self._last_status(child) for child in self._children)])

    def _last_status(self, child: _Child) -> int:
        # One that was only just starting dies of the signal itself: nothing was lost by it.
        if child.process is None or child.process.returncode in (0, -signal.SIGTERM):
            return 0
        if self._runs(child):
            self._tell(Trouble(f"{child.name} killed", f"still running after {self._drain:g} s", "error"))
        else:
            self._tell(Trouble(f"{child.name} ended", _told(child.process.returncode), "error"))
        return 1

    @staticmethod
    def _runs(child: _Child) -> bool:
        return child.process is not None and child.process.poll() is None

    def _send_all(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)

    def _kill_what_is_left(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.kill()
                child.process.wait()


def _told(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def _silent_pipe() -> Iterator[int]:
    """The end to read from of a pipe whose other end nobody has but we."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def _signals() -> Iterator[Callable[[float], set[signal.Signals]]]:
    """While inside, our signals do nothing but wake the returned function, which waits for them."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def arrived(seconds: float) -> set[signal.Signals]:
        """The signals that came, as soon as there is one; none after that many seconds."""
        if not select.select([reader], [], [], seconds)[0]:
            return set()
        return {signal.Signals(number) for number in os.read(reader, 4096)}

    try:
        yield arrived
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
