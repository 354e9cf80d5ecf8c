"""The policy daemon under a service manager: sockets handed over, readiness and the watchdog told.

This process plays systemd's part: it holds the listening sockets across restarts.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

MXWEIR = Path(sys.executable).parent / "mxweir"
REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\n"
    b"sender=a@sender.example\nrecipient=b@example.org\n\n"
)
ANSWER = b"action=DUNNO\n\n"
PATIENCE = 15.0
"""Seconds until a silent daemon is a fault; nothing here takes one."""

# What systemd does between fork and exec: the sockets are 3 and 4, and LISTEN_PID is the daemon's own.
HAND_OVER = """
import fcntl, os, sys
held = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1:3]]
for target, source in enumerate(held, start=3):
    os.dup2(source, target)
    os.close(source)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """As much of a service manager as the daemon can see."""

    def __init__(self, directory: Path) -> None:
        self.policy_path = directory / "policy"
        self._sockets = [self._listen(self.policy_path), self._listen(directory / "maps")]
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.settimeout(PATIENCE)
        self._directory = directory
        self._configuration = directory / "mxweir.toml"
        self._configuration.write_text(
            f'state_dir = "{directory}/state"\n'
            f'[policyd]\nlisten = ["unix:{directory}/not-bound"]\nmaps = []\nhttp = ""\n'
            f'[domains]\nfile = "{directory}/domains"\n'
        )
        (directory / "state").mkdir()
        (directory / "domains").write_text("example.org\n")
        self._running: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(1024)
        return listener

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the daemon with both sockets; it need not be ready when this returns."""
        numbers = [listener.fileno() for listener in self._sockets]
        command = [str(MXWEIR), "policyd", "--config", str(self._configuration)]
        daemon = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, *map(str, numbers), *command],
            pass_fds=numbers,
            env={
                **os.environ,
                "LISTEN_FDS": "2",
                "LISTEN_FDNAMES": "policy:maps",
                "NOTIFY_SOCKET": str(self._directory / "notify"),
                **environment,
            },
        )
        self._running.append(daemon)
        return daemon

    def hear(self, wanted: str) -> None:
        """Wait until the daemon has said this; other messages before it are passed over."""
        while self._notify.recv(4096).decode() != wanted:
            pass

    def ask(self) -> socket.socket:
        """Connect and send a request; the answer is for the caller to read."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        client.connect(str(self.policy_path))
        client.sendall(REQUEST)
        return client

    def close(self) -> None:
        """Stop what still runs."""
        for daemon in self._running:
            daemon.kill()
            daemon.wait()
        for held in (*self._sockets, self._notify):
            held.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager with nothing started yet."""
    with closing(Manager(tmp_path)) as started:
        yield started


def test_the_daemon_serves_sockets_it_is_handed_and_opens_the_other_configured_ones(manager: Manager) -> None:
    manager.start()
    manager.hear("READY=1")
    with manager.ask() as client:
        assert client.recv(4096) == ANSWER
    assert manager.policy_path.with_name("not-bound").is_socket()


def test_a_connection_made_while_the_daemon_restarts_is_answered_by_the_next_one(manager: Manager) -> None:
    first = manager.start()
    manager.hear("READY=1")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    with manager.ask() as client:
        manager.start()
        assert client.recv(4096) == ANSWER


def test_the_manager_is_told_ready_and_stopping(manager: Manager) -> None:
    daemon = manager.start()
    manager.hear("READY=1")
    daemon.send_signal(signal.SIGTERM)
    manager.hear("STOPPING=1")
    assert daemon.wait(PATIENCE) == 0


def test_the_watchdog_is_fed_again_and_again(manager: Manager) -> None:
    manager.start(WATCHDOG_USEC="200000")
    manager.hear("WATCHDOG=1")
    manager.hear("WATCHDOG=1")
