"""The SMTP client of the lab, beside a server that takes commands and no message."""

import socket
import threading
from collections.abc import Iterator

import pytest

from mxweir_ops.lab.client import Client


class Server:
    """Greets, says 354 to DATA and 250 to all else; `heard` is what came until the client hung up."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.heard = b""
        self.thread = threading.Thread(target=self.serve, args=(listener,))
        self.thread.start()

    def serve(self, listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(20)
            peer.sendall(b"220 lab\r\n")
            while line := peer.recv(1000):
                self.heard += line
                if b"DATA" not in self.heard:
                    peer.sendall(b"250 lab\r\n")
                elif line.startswith(b"DATA"):
                    peer.sendall(b"354 go on\r\n")


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Server(listener)
        yield running
        running.thread.join(30)


def be_interrupted(port: int) -> None:
    with Client(port, address=None, seconds=20) as client:
        client.command("DATA")
        raise KeyboardInterrupt


def test_a_client_that_is_interrupted_within_a_message_hangs_up_at_once(server: Server) -> None:
    with pytest.raises(KeyboardInterrupt):
        be_interrupted(server.port)
    server.thread.join(30)
    assert server.heard.endswith(b"DATA\r\n")


def test_a_client_that_is_done_says_so(server: Server) -> None:
    with Client(server.port, address=None, seconds=20) as client:
        assert client.mail("a@b.example").code == 250
    server.thread.join(30)
    assert server.heard.endswith(b"quit\r\n")
