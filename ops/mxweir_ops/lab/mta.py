"""The mail server's side of the milter protocol: says what it is told, and keeps every byte of the answers.

Postfix is the better test wherever it can be made to do something. This is for
what it never does, for comparing two milters byte by byte, and for hundreds of
connections at once. It waits for an answer only where one was agreed on, as
Postfix does.
"""

import socket
from collections.abc import Iterable, Sequence
from typing import Self

from mxweir.endpoint import Endpoint
from mxweir_ops.lab.place import connect

ACTIONS = 0x1FF
STEPS = 0x1FFFFF
"""All that version 6 of the protocol has."""

CHUNK = 65535
"""Bytes of the body in a packet, as Postfix sends it."""

NO_REPLY = {b"C": 0x1000, b"H": 0x2000, b"M": 0x4000, b"R": 0x8000, b"T": 0x10000}
NO_REPLY |= {b"L": 0x80, b"N": 0x40000, b"B": 0x80000, b"U": 0x20000}
"""By command, the bit that says that it has no answer (SMFIP_NR_*)."""

LEFT_OUT = {b"C": 0x1, b"H": 0x2, b"M": 0x4, b"R": 0x8, b"B": 0x10, b"L": 0x20, b"N": 0x40}
LEFT_OUT |= {b"U": 0x100, b"T": 0x200}
"""By command, the bit that says that it is not sent (SMFIP_NO*)."""

_SILENT = frozenset((b"D", b"A", b"Q", b"K"))
_LAST = frozenset((b"c", b"a", b"r", b"t", b"d", b"s", b"y", b"4", b"O"))
"""What ends the answer to a command; changes and signs of progress come before it."""

Packet = tuple[bytes, bytes]


def packet(letter: bytes, data: bytes = b"") -> bytes:
    """A command as it is sent."""
    return (1 + len(data)).to_bytes(4) + letter + data


class Mta:
    """One session with a milter; OSError when it is not there, EOFError when it hangs up."""

    def __init__(self, endpoint: Endpoint, seconds: float = 10.0) -> None:
        self._socket = connect(endpoint)
        self._socket.settimeout(seconds)
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        self._steps = 0
        self.heard = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def say(self, letter: bytes, data: bytes = b"") -> list[Packet]:
        """Send a command and read the answer, where there is one."""
        self.send(letter, data)
        if letter in _SILENT or self._steps & NO_REPLY.get(letter, 0):
            return []
        if self._steps & LEFT_OUT.get(letter, 0):
            raise ValueError(f"it was agreed that {letter!r} is left out")
        return self.answer()

    def send(self, letter: bytes, data: bytes = b"") -> None:
        """Send a command."""
        self._socket.sendall(packet(letter, data))

    def answer(self) -> list[Packet]:
        """Read packets up to the one that ends an answer."""
        packets = [self._packet()]
        while packets[-1][0] not in _LAST:
            packets.append(self._packet())
        return packets

    def negotiate(self, version: int = 6, actions: int = ACTIONS, steps: int = STEPS) -> bytes:
        """Offer this much; the data of the answer."""
        offer = b"".join(number.to_bytes(4) for number in (version, actions, steps))
        ((_, agreed),) = self.say(b"O", offer)
        self._steps = int.from_bytes(agreed[8:12])
        return agreed

    def define(self, command: bytes, macros: Sequence[str]) -> None:
        """Send macros for the command that follows: names and values by turns."""
        self.say(b"D", command + b"".join(word.encode() + b"\0" for word in macros))

    def greet(self, name: str = "mail.sender.example", address: str = "203.0.113.9") -> None:
        """A client of this name and address has connected and said HELO."""
        self.say(b"C", name.encode() + b"\0004" + (4711).to_bytes(2) + address.encode() + b"\0")
        self.say(b"H", name.encode() + b"\0")

    def deliver(
        self,
        headers: Iterable[tuple[bytes, bytes]] = ((b"Subject", b" hello"),),
        body: bytes = b"hello\r\n",
        sender: bytes = b"<a@sender.example>",
        recipients: Iterable[bytes] = (b"<b@example.org>",),
    ) -> list[Packet]:
        """One message, from MAIL to the answer at its end, or to one that comes before."""
        self.say(b"M", sender + b"\0")
        for recipient in recipients:
            self.say(b"R", recipient + b"\0")
        answer = self.say(b"T")
        if answer and answer[-1][0] != b"c":
            return answer
        for name, value in headers:
            self.say(b"L", name + b"\0" + value + b"\0")
        if not self._steps & LEFT_OUT[b"N"]:
            self.say(b"N")
        for start in range(0, len(body), CHUNK):
            if self.say(b"B", body[start : start + CHUNK])[-1:] == [(b"s", b"")]:
                break
        return self.say(b"E")

    def _packet(self) -> Packet:
        length = int.from_bytes(self._read(4))
        data = self._read(length)
        return data[:1], data[1:]

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError("the milter has hung up")
            data += piece
        self.heard += data
        return data
