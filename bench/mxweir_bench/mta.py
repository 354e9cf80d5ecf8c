"""Plays Postfix towards a milter, so that an answer's time is measured without a mail server's in it.

    async with await Session.open(endpoint) as session:
        answer = await session.send(Letter(size=4096))

It speaks version 6 of the milter protocol with all that Postfix 3.7 offers
(milter8.c), for hundreds of sessions on one event loop; `mxweir_ops.lab.mta`
knows the protocol, and is for one session that waits.
"""

import asyncio
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from mxweir.endpoint import Endpoint, Unix
from mxweir_ops.lab.mta import ACTIONS, CHUNK, LEFT_OUT, NO_REPLY, STEPS, packet

_SKIP = 0x400
_CHANGES = frozenset(b"h i m e + 2 - b q p".split())
_TEXT = b"The quick brown fox jumps over the lazy dog, and back again to where it came.\r\n" * 1000


class Closed(Exception):  # noqa: N818 - what happened, not whose fault it is
    """The milter has closed the connection where an answer was due."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of about so many bytes; its header has a dozen fields."""

    size: int
    sender: str = "a@sender.example"
    recipient: str = "b@rcptdom1.example"


class Answer(NamedTuple):
    """The answer to a message: seconds after its end, the reply's letter, and the letters of changes."""

    seconds: float
    verdict: bytes
    changes: bytes


class Session:
    """One connection to a milter, as one smtpd process of Postfix holds it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._steps = 0

    @classmethod
    async def open(cls, endpoint: Endpoint, *, skips: bool = True) -> Self:
        """Connect, negotiate and say who the client is. Raises OSError, or Closed.

        Without `skips` it sends all of a body, as a mail server of version 2 does.
        """
        if isinstance(endpoint, Unix):
            streams = await asyncio.open_unix_connection(endpoint.path)
        else:
            streams = await asyncio.open_connection(endpoint.host, endpoint.port)
        session = cls(*streams)
        try:
            await session._greet(STEPS if skips else STEPS & ~_SKIP)
        except BaseException:
            session.close()
            raise
        return session

    async def _greet(self, steps: int) -> None:
        self._send(b"O", struct.pack("!III", 6, ACTIONS, steps))
        _, agreed = await self._packet()
        (self._steps,) = struct.unpack_from("!I", agreed, 8)
        self._macros(b"C", j="mx.lab.example", daemon_name="smtpd", v="Postfix 3.7.11")
        await self._step(b"C", b"mail.sender.example\x004\x9c\x40203.0.113.9\0")
        await self._step(b"H", b"mail.sender.example\0")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def send(self, letter: Letter) -> Answer:
        """Send a message and wait for its answer. Raises Closed, or OSError."""
        if early := await self.begin(letter):
            return early
        return await self.end()

    async def begin(self, letter: Letter) -> Answer | None:
        """Send all but the end of a message; an answer means that the milter has heard enough."""
        self._macros(b"M", mail_addr=letter.sender)
        for letter_, data in (
            (b"M", f"<{letter.sender}>\0".encode()),
            (b"R", f"<{letter.recipient}>\0".encode()),
            (b"T", b""),
            *((b"L", field) for field in _header(letter)),
            (b"N", b""),
        ):
            if letter_ == b"T":
                self._macros(b"T", i="4Xy1Zz2abc")
            if (verdict := await self._step(letter_, data)) not in (b"c", b""):
                return Answer(0.0, verdict, b"")
        for piece in _body(letter.size):
            verdict = await self._step(b"B", piece)
            if verdict == b"s":
                break
            if verdict not in (b"c", b""):
                return Answer(0.0, verdict, b"")
        return None

    async def end(self) -> Answer:
        """Send the end of the message, and wait for its answer."""
        self._macros(b"E", i="4Xy1Zz2abc")
        began = time.perf_counter()
        self._send(b"E")
        changes = b""
        while (verdict := (await self._packet())[0]) in _CHANGES:
            changes += verdict
        return Answer(time.perf_counter() - began, verdict, changes)

    def abort(self) -> None:
        """End the message in hand without an answer."""
        self._send(b"A")

    def close(self) -> None:
        """End the session, whatever is under way."""
        self._writer.close()

    async def _step(self, letter: bytes, data: bytes) -> bytes:
        """Send a command unless it is not wanted; the reply's letter, if there is one."""
        if self._steps & LEFT_OUT[letter]:
            return b""
        self._send(letter, data)
        if self._steps & NO_REPLY[letter]:
            await self._writer.drain()
            return b""
        return (await self._packet())[0]

    def _macros(self, command: bytes, **macros: str) -> None:
        names = {name if len(name) == 1 else f"{{{name}}}": value for name, value in macros.items()}
        self._send(b"D", command + "".join(f"{name}\0{value}\0" for name, value in names.items()).encode())

    def _send(self, letter: bytes, data: bytes = b"") -> None:
        self._writer.write(packet(letter, data))

    async def _packet(self) -> tuple[bytes, bytes]:
        try:
            (length,) = struct.unpack("!I", await self._reader.readexactly(4))
            answer = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise Closed from None
        return answer[:1], answer[1:]


def _header(letter: Letter) -> Iterator[bytes]:
    fields = {
        "Received": "from x.sender.example (x.sender.example [203.0.113.7])\n\tby mail.sender.example; today",
        "DKIM-Signature": f"v=1; a=rsa-sha256; d=sender.example; s=1;\n\th=from:to:subject;\n\tb={'x' * 300}",
        "From": f"Bert <{letter.sender}>",
        "To": f"Anna <{letter.recipient}>",
        "Subject": "Minutes of Tuesday",
        "Date": "Sun, 22 Nov 2026 05:00:00 +0000",
        "Message-ID": "<20261122.1@sender.example>",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "X-Mailer": "a mail program",
        "List-Id": "<list.sender.example>",
        "List-Unsubscribe": "<mailto:leave@sender.example>",
    }
    return (f"{name}\0 {value}\0".encode() for name, value in fields.items())


def _body(size: int) -> Iterator[bytes]:
    """Pieces of at most 65,535 bytes, as Postfix's."""
    while size > 0:
        piece = _TEXT[: min(size, CHUNK)]
        size -= len(piece)
        yield piece if size else piece[:-2] + b"\r\n"
