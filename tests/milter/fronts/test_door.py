import os
import socket
import stat

import pytest

from mxweir.endpoint import Inet, Unix
from mxweir.service import ServiceError
from mxweir_milter.fronts.door import Door
from mxweir_ops.lab.place import free_port


class Library:
    """Opens its socket itself, as libmilter does, and leaves the file behind."""

    def __init__(self, path):
        self.path = path
        self.mode_at_first = 0o777
        self.socket = socket.socket(socket.AF_UNIX)

    def open(self):
        self.socket.bind(str(self.path))
        self.mode_at_first = stat.S_IMODE(self.path.stat().st_mode)
        self.socket.listen()


@pytest.fixture
def library(tmp_path):
    made = Library(tmp_path / "milter")
    yield made
    made.socket.close()


def opened(library, mode=0o660):
    door = Door(Unix(str(library.path)))
    door.open(library.open, mode, "")
    return door


def test_the_socket_file_has_the_mode_and_the_umask_is_what_it_was(library):
    before = os.umask(0o022)
    try:
        door = opened(library, 0o640)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE(library.path.stat().st_mode) == 0o640
    door.close()


def test_nobody_can_connect_before_the_permissions_are_right(library):
    opened(library).close()
    assert library.mode_at_first == 0


def test_a_socket_left_by_a_dead_process_is_replaced(library):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(library.path))
    dead.close()
    opened(library).close()


def test_a_socket_that_somebody_serves_is_not_replaced(library):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(library.path))
        other.listen()
        with pytest.raises(ServiceError, match="another process is serving it"):
            opened(library)
        assert library.path.exists()


def test_a_file_that_is_no_socket_is_not_replaced(library):
    library.path.write_text("precious")
    with pytest.raises(ServiceError, match="a file that is no socket is in the way"):
        opened(library)


def test_closing_takes_the_file_away(library):
    opened(library).close()
    assert not library.path.exists()


def test_a_successors_file_is_left_alone(library, tmp_path):
    door = opened(library)
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(tmp_path / "milter.new"))
        (tmp_path / "milter.new").rename(library.path)
        door.unlink()
        door.close()
        assert library.path.exists()


def test_a_knock_is_heard_even_when_the_file_is_gone(library):
    door = opened(library)
    door.unlink()
    door.knock()
    library.socket.settimeout(20)
    library.socket.accept()[0].close()
    door.close()


def test_a_knock_is_heard_on_tcp():
    port = free_port()
    listener = socket.socket()

    def open_socket():
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()

    with listener:
        door = Door(Inet("127.0.0.1", port))
        door.open(open_socket, 0o660, "")
        door.knock()
        listener.settimeout(20)
        listener.accept()[0].close()
        door.close()


def test_a_knock_at_a_closed_door_is_no_error(library):
    door = opened(library)
    library.socket.close()
    door.knock()
    door.close()
