"""The daemon and its service manager: what it is told, and the sockets that it hands over."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mxweir import service
from mxweir.endpoint import Unix
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.process import wait_until

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

HAND_OVER = """
import fcntl, os, sys
names = dict(word.split("=") for word in sys.argv[1:3])
held = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in names.values()]
for target, source in enumerate(held, start=3):
    os.dup2(source, target)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": ":".join(names)}
os.execv(sys.argv[3], sys.argv[3:])
"""
"""What systemd does between fork and exec: the sockets are 3 and 4, and LISTEN_PID is the daemon's own."""


@pytest.fixture
def heard(own: "Policyd", monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What the daemon tells its manager, a datagram each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = str(own.directory / "notify")
        listener.bind(path)
        listener.settimeout(15.0)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listener


def hear(heard: socket.socket) -> str:
    return heard.recv(4096).decode()


def test_the_manager_is_told_when_it_is_ready_reloads_and_stops(own: "Policyd", heard: socket.socket) -> None:
    own.start()
    assert hear(heard) == "READY=1"
    own.reload()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", hear(heard))
    assert hear(heard) == "READY=1"
    own.config_file.write_text("broken")
    own.reload()
    assert hear(heard).startswith("RELOADING=1\n")
    assert hear(heard) == "READY=1"
    own.stop()
    assert hear(heard) == "STOPPING=1"


def test_the_watchdog_is_fed_on_and_on(
    own: "Policyd", heard: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    own.start()
    assert sorted({hear(heard) for _ in range(5)}) == ["READY=1", "WATCHDOG=1"]


def test_sockets_handed_over_are_known_by_their_names_and_left_in_place(own: "Policyd") -> None:
    paths = {name: str(own.directory / f"handed-{name}") for name in ("maps", "policy")}
    listeners = {name: service.bind(Unix(path)) for name, path in paths.items()}
    numbers = {name: listener.socket.fileno() for name, listener in listeners.items()}
    words = [f"{name}={number}" for name, number in numbers.items()]
    argv = [sys.executable, "-c", HAND_OVER, *words, *command("policyd", own.config_file)]
    daemon = subprocess.Popen(argv, pass_fds=list(numbers.values()), stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: own.page("/readyz")[0] == 200, 20)
        with closing(PolicyClient(Unix(paths["policy"]))) as client:
            assert client.ask() == "DUNNO"
        with connect(Unix(paths["maps"])) as lookup:
            lookup.sendall(b"25:relay-domains example.org,")
            assert lookup.recv(100) == b"14:OK example.org,"
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0
    assert all(Path(path).exists() for path in paths.values())
    for listener in listeners.values():
        listener.close()


def test_sockets_that_are_meant_for_another_process_are_not_taken(
    own: "Policyd", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    own.start()
    assert own.ask() == "DUNNO"
