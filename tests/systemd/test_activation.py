"""The daemons under a service manager: sockets handed over, readiness and the watchdog told.

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

from mxweir.endpoint import Unix
from mxweir_ops.lab import manager
from mxweir_ops.lab.mta import Mta

MXWEIR = Path(sys.executable).parent / "mxweir"
REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\n"
    b"sender=a@sender.example\nrecipient=b@example.org\n\n"
)
ANSWER = b"action=DUNNO\n\n"
PATIENCE = 90.0
"""Seconds until a silent daemon is a fault; nothing here takes one."""


class Manager:
    """As much of a service manager as the daemons can see."""

    def __init__(self, directory: Path) -> None:
        self.policy_path = directory / "policy"
        self.milter_path = directory / "milter"
        self._held = {"policyd": manager.Manager(), "milter": manager.Manager()}
        self._held["policyd"].listen("policy", self.policy_path)
        self._held["policyd"].listen("maps", directory / "maps")
        self._held["milter"].listen("milter", self.milter_path)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.settimeout(PATIENCE)
        self._directory = directory
        self._configuration = directory / "mxweir.toml"
        self.configure()
        (directory / "state").mkdir()
        (directory / "domains").write_text("example.org\n")
        self._running: list[subprocess.Popen[bytes]] = []

    def configure(self, milter: str = "") -> None:
        """Write the configuration, with these lines for the milter."""
        directory = self._directory
        self._configuration.write_text(
            f'state_dir = "{directory}/state"\n'
            f'[policyd]\nlisten = ["unix:{directory}/not-bound"]\nmaps = []\nhttp = ""\n'
            f'[milter]\nlisten = "unix:{self.milter_path}"\nhttp = ""\n{milter}\n'
            f'[domains]\nfile = "{directory}/domains"\n'
        )

    def start(self, verb: str = "policyd", **environment: str) -> subprocess.Popen[bytes]:
        """Start a daemon with its sockets; it need not be ready when this returns."""
        held = self._held[verb]
        daemon = subprocess.Popen(
            held.argv([str(MXWEIR), verb, "--config", str(self._configuration)]),
            pass_fds=held.numbers,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                **held.environment,
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
            daemon.communicate()
        self._notify.close()
        for held in self._held.values():
            held.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Manager]:
    """A service manager with nothing started yet."""
    with closing(Manager(tmp_path)) as started:
        yield started


def test_the_daemon_serves_sockets_it_is_handed_and_opens_the_other_configured_ones(systemd: Manager) -> None:
    systemd.start()
    systemd.hear("READY=1")
    with systemd.ask() as client:
        assert client.recv(4096) == ANSWER
    assert systemd.policy_path.with_name("not-bound").is_socket()


def test_a_connection_made_while_the_daemon_restarts_is_answered_by_the_next_one(systemd: Manager) -> None:
    first = systemd.start()
    systemd.hear("READY=1")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    with systemd.ask() as client:
        systemd.start()
        assert client.recv(4096) == ANSWER


def test_a_milter_session_begun_while_the_milter_restarts_is_served_by_the_next_one(systemd: Manager) -> None:
    first = systemd.start("milter")
    systemd.hear("READY=1")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    assert systemd.milter_path.is_socket()
    with Mta(Unix(str(systemd.milter_path)), PATIENCE) as mta:
        systemd.start("milter")
        mta.negotiate()
        mta.greet()
        assert mta.deliver()[-1] == (b"a", b"")


def test_libmilters_front_says_that_it_cannot_serve_a_socket_of_the_managers(systemd: Manager) -> None:
    pytest.importorskip("Milter")
    systemd.configure('front = "libmilter"')
    daemon = systemd.start("milter")
    _, said = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 2
    assert b"systemctl mask --now mxweir-milter.socket" in said
    assert said.count(b"\n") == 1


@pytest.mark.parametrize("verb", ["policyd", "milter"])
def test_the_manager_is_told_ready_and_stopping(systemd: Manager, verb: str) -> None:
    daemon = systemd.start(verb)
    systemd.hear("READY=1")
    daemon.send_signal(signal.SIGTERM)
    systemd.hear("STOPPING=1")
    assert daemon.wait(PATIENCE) == 0


@pytest.mark.parametrize("verb", ["policyd", "milter"])
def test_the_watchdog_is_fed_again_and_again(systemd: Manager, verb: str) -> None:
    systemd.start(verb, WATCHDOG_USEC="200000")
    systemd.hear("WATCHDOG=1")
    systemd.hear("WATCHDOG=1")
