"""Workers below a service manager: it is told of the service as a whole, and its sockets serve all of it."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mxweir.endpoint import Unix
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import connections
from mxweir_ops.lab.manager import Manager
from mxweir_ops.lab.place import connect

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

SLACK = 20.0


@pytest.fixture
def heard(own: "Policyd", monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What the daemon tells its manager, a datagram each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = str(own.directory / "notify")
        listener.bind(path)
        listener.settimeout(SLACK)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield lambda: listener.recv(4096).decode()


def test_the_manager_hears_of_the_service_and_not_of_its_workers(
    own: "Policyd", heard: Callable[[], str]
) -> None:
    own.start()
    assert heard() == "READY=1"
    own.reload()
    assert heard().startswith("RELOADING=1\n")
    assert heard() == "READY=1"
    os.kill(own.workers[0], signal.SIGKILL)
    own.wait_for(SLACK, event="worker replaced")
    own.stop()
    assert heard() == "STOPPING=1"


def test_the_watchdog_is_fed_while_all_loops_turn(
    own: "Policyd", heard: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    own.start()
    assert sorted({heard() for _ in range(5)}) == ["READY=1", "WATCHDOG=1"]


def test_sockets_that_are_handed_over_serve_all_workers_and_outlast_a_restart(own: "Policyd") -> None:
    policy, maps = own.directory / "handed-policy", own.directory / "handed-maps"
    with Manager() as manager, ExitStack() as stack:
        manager.listen("policy", policy)
        manager.listen("maps", maps)
        own.manager = manager
        own.start()
        clients = [stack.enter_context(PolicyClient(Unix(str(policy)))) for _ in range(4)]
        assert [client.ask(sender=f"{id(client)}@a.example") for client in clients] == ["DUNNO"] * 4
        assert [connections(pid, Unix(str(policy))) for pid in own.workers] == [2, 2]
        with connect(Unix(str(maps))) as lookup:
            lookup.sendall(b"25:relay-domains example.org,")
            assert lookup.recv(100) == b"14:OK example.org,"
        own.stop()
        waiting = stack.enter_context(PolicyClient(Unix(str(policy)), SLACK))
        own.start()
        assert waiting.ask(sender="waiting@a.example") == "DUNNO"
    assert Path(policy).exists()
