"""One child process of the lab: found, started, waited for, stopped by its own id."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL = 0.02


class LabError(Exception):
    """A private server is not to be had; the text is one line that says why, and what would help."""


class MissingError(LabError):
    """The machine lacks what the server needs: a program, a library, root. No fault of anybody's code."""


def program(name: str, package: str) -> Path:
    """The path of an installed program, also where PATH leaves out the sbin directories.

    Raises MissingError, naming the Debian package that holds it.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if found is None:
        raise MissingError(f"{name} is not installed (Debian's package {package} has it)")
    return Path(found)


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again, up to that many seconds, whether something has become true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL)
    return True


class Server(ABC):
    """A private server: `with` starts it, waits until it answers, and stops it."""

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers; LabError says why it does not."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it, if it runs, and wait until it is gone."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # An interrupt while it starts must not leave it running.
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class Child:
    """A server that stays in the foreground, with what it prints kept in a file.

    It leads a process group of its own: a Ctrl-C at the terminal reaches only
    the program that started it, which then stops its servers in order.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        output: Path,
        env: Mapping[str, str] | None = None,
        files: Sequence[int] = (),
    ):
        self.name = name
        self.output = output
        with output.open("ab") as stream:
            self._process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                process_group=0,
                pass_fds=files,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def printed(self) -> str:
        """What it wrote to stdout and stderr so far."""
        return self.output.read_text(errors="backslashreplace")

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return as soon as `ready` is true; otherwise stop it and raise LabError with its last line."""
        if wait_until(lambda: self.status is not None or ready(), seconds) and self.status is None:
            return
        status = self.status
        reason = f"did not answer within {seconds:g} s" if status is None else f"ended with status {status}"
        self.stop(1.0)
        raise LabError(f"{self.name} {reason}; its last line: {self._last_line()}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    def send_group(self, number: signal.Signals) -> None:
        """Send a signal to it and to the children that share its process group."""
        if self.status is None:
            os.killpg(self.pid, number)

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after that many seconds; its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to its whole group at once; its exit status."""
        self.send_group(signal.SIGKILL)
        return self._process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit status, once it ends by itself; subprocess.TimeoutExpired when it does not."""
        return self._process.wait(seconds)

    def _last_line(self) -> str:
        lines = self.printed().strip().splitlines()
        return lines[-1] if lines else "(none)"


class Freezable(Server):
    """A server whose processes are one group, and can be frozen together."""

    _child: Child | None = None

    def stop(self) -> None:
        """Stop it; a frozen one is thawed first, because it could not obey."""
        if self._child is not None:
            self.thaw()
            self._child.stop()
            self._child = None

    def freeze(self) -> None:
        """Stop all its processes in their tracks: connections are accepted, nothing answers."""
        if self._child is not None:
            self._child.send_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        if self._child is not None:
            self._child.send_group(signal.SIGCONT)

    def log(self) -> str:
        """Everything it has logged."""
        return self._child.printed() if self._child else ""
