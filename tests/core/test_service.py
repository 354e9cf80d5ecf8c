import grp
import json
import os
import re
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir import service
from mxweir.endpoint import Inet, Unix
from mxweir.service import Listener, ServiceError, SettingError, bind, endpoint_of, notify, watchdog_seconds
from mxweir_ops.lab.place import free_port


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy"


def answers(path: Path) -> bool:
    """Whether somebody listens at a socket file."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def leave_behind(path: Path) -> None:
    """What a process that was killed leaves: a socket file that nobody serves."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen(1)
    dead.close()
    assert path.is_socket()


def held(path: Path) -> Listener:
    return bind(Unix(str(path)))


# Unix sockets


def test_a_unix_socket_listens_with_the_mode_that_was_asked_for(path):
    for mode in (0o600, 0o660, 0o666):
        listener = bind(Unix(str(path)), mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert answers(path)
        listener.close()


def test_the_mode_does_not_depend_on_the_umask(path):
    before = os.umask(0o077)
    try:
        listener = bind(Unix(str(path)), 0o666)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    listener.close()


def test_nobody_can_connect_before_the_mode_and_the_group_are_right(path, monkeypatch):
    modes = []

    def chown(place: str, *_: int) -> None:
        modes.append(stat.S_IMODE(Path(place).stat().st_mode))

    monkeypatch.setattr(os, "chown", chown)
    bind(Unix(str(path)), 0o660, grp.getgrgid(os.getegid()).gr_name).close()
    assert modes == [0]


def test_a_unix_socket_gets_the_group_that_was_asked_for(path):
    # Any group for root; for others one that they belong to, the present one if there is no other.
    mine = set(os.getgroups())
    groups = [group for group in grp.getgrall() if os.geteuid() == 0 or group.gr_gid in mine]
    group = next((group for group in groups if group.gr_gid != os.getegid()), grp.getgrgid(os.getegid()))
    listener = bind(Unix(str(path)), 0o660, group.gr_name)
    assert path.stat().st_gid == group.gr_gid
    listener.close()


def test_a_group_that_does_not_exist_is_told_and_leaves_nothing_behind(path):
    with pytest.raises(
        SettingError, match='socket_group = "no-such-group": there is no such group'
    ) as caught:
        bind(Unix(str(path)), 0o660, "no-such-group")
    assert caught.value.status == 2
    assert not path.exists()


def test_when_the_mode_cannot_be_set_nothing_is_left_behind(path, monkeypatch):
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", fail)
    with pytest.raises(ServiceError, match="Operation not permitted"):
        held(path)
    monkeypatch.undo()
    assert not path.exists()
    held(path).close()


def test_without_a_group_a_socket_is_made_also_where_no_owner_may_be_changed(path, monkeypatch):
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    # As under the shipped units, whose filter of system calls forbids it.
    monkeypatch.setattr(os, "chown", fail)
    held(path).close()


def test_a_socket_file_that_a_dead_process_left_is_replaced(path):
    leave_behind(path)
    listener = held(path)
    assert answers(path)
    listener.close()


def test_a_socket_that_somebody_serves_is_left_to_them(path):
    first = held(path)
    with pytest.raises(ServiceError, match="another process is serving it; stop that first"):
        held(path)
    assert answers(path)
    first.close()


def test_a_server_too_busy_to_take_a_connection_is_no_dead_one(path):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        for _ in range(10):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            client.connect_ex(str(path))
        with pytest.raises(ServiceError, match="another process is serving it"):
            held(path)
        assert path.is_socket()
        for client in waiting:
            client.close()


def test_a_file_that_is_no_socket_is_never_removed(path):
    path.write_text("somebody's mail")
    with pytest.raises(ServiceError, match="a file that is no socket is in the way"):
        held(path)
    assert path.read_text() == "somebody's mail"


def test_a_directory_in_the_way_is_told(path):
    path.mkdir()
    with pytest.raises(ServiceError, match="no socket is in the way"):
        held(path)


def test_a_place_that_does_not_exist_is_told_in_one_line(path):
    with pytest.raises(ServiceError) as caught:
        held(path / "below")
    what = f"there is no directory {path}; make it, writable by the daemon's user"
    assert str(caught.value) == f"cannot listen at unix:{path}/below: {what}"
    assert caught.value.status == 1


def test_closing_removes_the_socket_file(path):
    held(path).close()
    assert not path.exists()


def test_closing_does_not_remove_the_socket_of_a_successor(path):
    former = held(path)
    path.unlink()
    successor = held(path)
    former.close()
    assert answers(path)
    successor.close()


# TCP


def test_a_port_is_listened_on_and_taken_only_once():
    port = free_port()
    listener = bind(Inet("127.0.0.1", port))
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ServiceError, match=f"cannot listen at inet:127.0.0.1:{port}: Address already in use"):
        bind(Inet("127.0.0.1", port))
    listener.close()
    bind(Inet("127.0.0.1", port)).close()


def test_the_kernel_looks_whether_the_other_end_of_a_quiet_connection_is_still_there():
    port = free_port()
    listener = bind(Inet("127.0.0.1", port))
    listener.socket.settimeout(10)
    with socket.create_connection(("127.0.0.1", port)), listener.socket.accept()[0] as accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [60, 10, 6]
    listener.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_an_ipv6_port_is_listened_on_and_leaves_the_ipv4_one_free_and_is_told_where_there_is_none():
    port = free_port()
    four = bind(Inet("0.0.0.0", port))
    if has_ipv6():
        six = bind(Inet("::", port))
        socket.create_connection(("::1", port)).close()
        six.close()
    else:
        with pytest.raises(ServiceError, match="cannot listen at inet:"):
            bind(Inet("::1", port))
    four.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "192.0.2.1"])
def test_a_host_that_is_no_address_of_ours_is_told(host):
    with pytest.raises(ServiceError, match=f"cannot listen at inet:{re.escape(host)}:10040: "):
        bind(Inet(host, 10040))


def test_a_listener_tells_where_it_listens(path):
    port = free_port()
    for endpoint in (Unix(str(path)), Inet("127.0.0.1", port)):
        listener = bind(endpoint)
        assert endpoint_of(listener.socket) == endpoint == listener.endpoint
        assert listener.socket.getblocking() is False
        assert not os.get_inheritable(listener.socket.fileno())
        listener.close()


# The service manager

INHERIT = """
import fcntl, json, os, sys
from mxweir.service import inherited
# What systemd does between fork and exec: the sockets begin at 3.
held = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1:]]
for target, number in enumerate(held, start=3):
    os.dup2(number, target)
os.environ["LISTEN_PID"] = os.environ.get("LISTEN_PID") or str(os.getpid())
taken = inherited()
again = inherited()
for listeners in taken.values():
    for listener in listeners:
        listener.setblocking(True)
        with listener.accept()[0] as connection:
            connection.sendall(str(listener.getsockname()).encode())
print(json.dumps({
    "names": {name: len(listeners) for name, listeners in taken.items()},
    "again": len(again),
    "left": sorted(name for name in os.environ if name.startswith("LISTEN_")),
    "inheritable": [os.get_inheritable(l.fileno()) for ls in taken.values() for l in ls],
}))
"""


class Handed:
    """Three listening sockets, and a process that is given them."""

    def __init__(self, directory: Path) -> None:
        self.listeners = []
        for name in ("policy", "policy2", "maps"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(directory / name))
            listener.listen(5)
            self.listeners.append(listener)
        self.clients = [socket.socket(socket.AF_UNIX) for _ in self.listeners]
        for client, listener in zip(self.clients, self.listeners, strict=True):
            client.settimeout(20)
            client.connect(listener.getsockname())

    def take(self, **environ: str) -> dict[str, object]:
        numbers = [listener.fileno() for listener in self.listeners]
        done = subprocess.run(
            [sys.executable, "-c", INHERIT, *map(str, numbers)],
            pass_fds=numbers,
            env=dict(os.environ) | environ,
            capture_output=True,
            check=True,
            timeout=60,
        )
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def close(self) -> None:
        for each in (*self.clients, *self.listeners):
            each.close()


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[Handed]:
    handed = Handed(tmp_path)
    yield handed
    handed.close()


def test_sockets_handed_over_are_taken_by_their_names_once_and_serve(handed):
    found = handed.take(LISTEN_FDS="3", LISTEN_FDNAMES="policy:policy:maps")
    assert found == {
        "names": {"policy": 2, "maps": 1},
        "again": 0,
        "left": [],
        "inheritable": [False, False, False],
    }
    for client, name in zip(handed.clients, ("policy", "policy2", "maps"), strict=True):
        assert client.recv(1000).decode().endswith(f"/{name}")


def test_sockets_without_a_name_are_called_unknown(handed):
    assert handed.take(LISTEN_FDS="3", LISTEN_FDNAMES="policy")["names"] == {"policy": 1, "unknown": 2}


@pytest.mark.parametrize(
    "environ",
    [
        {"LISTEN_FDS": "3", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x"},
        {"LISTEN_FDS": ""},
        {"LISTEN_FDS": "0"},
        {},
    ],
)
def test_sockets_meant_for_another_process_are_not_taken(handed, environ):
    assert handed.take(**environ)["names"] == {}


@pytest.mark.parametrize("abstract", [False, True])
def test_readiness_is_told_in_one_datagram(tmp_path, abstract):
    name = f"\0mxweir-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(10)
        notify("READY=1\nSTATUS=so", {"NOTIFY_SOCKET": name.replace("\0", "@")})
        assert manager.recv(1000) == b"READY=1\nSTATUS=so"


def test_without_a_manager_who_listens_telling_is_no_error(tmp_path):
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": ""})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    leave_behind(tmp_path / "stream")
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "stream")})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ, seconds):
    assert watchdog_seconds(environ) == seconds


def test_a_process_may_open_as_many_files_as_it_asks_for_or_is_allowed():
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, former[1]))
        service.allow_files(128)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (128, former[1])
        service.allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 128
        if former[1] != resource.RLIM_INFINITY:
            service.allow_files(former[1] * 2)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (former[1], former[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
