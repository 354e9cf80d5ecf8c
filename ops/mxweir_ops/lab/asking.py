"""A policy client: asks the policy daemon as an smtpd process of Postfix does."""

from mxweir.endpoint import Endpoint
from mxweir_ops.lab.place import connect
from mxweir_policyd.protocol import format_request

USUAL = {
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "203.0.113.9",
    "client_name": "mail.sender.example",
    "helo_name": "mail.sender.example",
    "sender": "bert@sender.example",
    "recipient": "anna@example.org",
    "recipient_count": "0",
    "instance": "1.1.1.0",
    "size": "0",
}
"""What a request says where a test does not say otherwise."""


class PolicyClient:
    """One connection to the policy daemon. Raises OSError: TimeoutError when nothing comes."""

    def __init__(self, endpoint: Endpoint, seconds: float = 20.0):
        self.socket = connect(endpoint, seconds)
        self._answers = self.socket.makefile("rb")

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self.socket.close()

    def ask(self, **attributes: str) -> str:
        """Ask one question, by what differs from the usual one; the action that is the answer."""
        self.send(format_request(USUAL | attributes))
        return self.answer()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def answer(self) -> str:
        """Read one reply; ConnectionError when the daemon hangs up instead."""
        line = self._answers.readline()
        if not line or self._answers.readline() != b"\n":
            raise ConnectionError(f"the policy daemon hung up after {line!r}")
        return line.decode().removeprefix("action=").rstrip("\n")

    def is_closed(self) -> bool:
        """Whether the daemon hangs up, without a word, within the seconds that were given."""
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True
