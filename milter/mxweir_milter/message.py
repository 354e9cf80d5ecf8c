"""What a scanner sees: the message put together again from the milter's callbacks.

Postfix gives header fields one by one, the lines of a folded one ended by LF
alone, and the body in pieces of up to 64 KiB, each of its lines ended by CRLF
even where the client sent LF alone (milter8.c, milter8_body). Two things a
scanner must never get are put right here. A message that does not end in a line
end (a client can send one by BDAT) made SpamAssassin wait for more until it
timed out, so a final CRLF is added before anybody computes a length. And the LF
in a header field becomes CRLF. A lone CR stays: it is content, and no mail
server takes it for a line end.
"""

import re
from typing import NamedTuple, Protocol

from mxweir_milter.facts import Client, Envelope
from mxweir_milter.limits import Question

_LONE_LF = re.compile(rb"(?<!\r)\n")
_LINE_THAT_IS_NO_FOLD = re.compile(rb"\r?\n(?![ \t])")
_STEP = 8192
"""Bytes of room that are taken at once: most messages have enough in one step, and none holds much unused."""

_HEADER_NAME = bytes(code if 0x20 < code < 0x7F and code != ord(":") else ord("?") for code in range(256))
"""What stands for each byte of a header field's name."""


class Message(NamedTuple):
    """One message to scan.

    `content` is header and body as the mail server gave them, with CRLF line ends
    and one at the very end. `arrived` is in seconds since the epoch. `question` is for
    the limits by content, to be asked first.
    """

    client: Client
    envelope: Envelope
    content: bytes | bytearray
    arrived: float
    question: Question | None = None


class Room(Protocol):
    """Memory that all messages in hand share; see `mxweir_milter.room`."""

    def take(self, size: int) -> bool:
        """Use that many bytes more; false when there are not as many."""

    def give(self, size: int) -> None:
        """Use that many bytes less."""


class Content:
    """Collects one message's header and body, in memory up to `limit` bytes and the `room` there is.

    `size` goes on counting what arrives; once it is over the limit, all that
    was kept is let go and `too_large` is true for good. The same with `no_room`,
    when other messages fill the memory. `wanted` is false then, and where
    somebody has said that nobody will look at the message.
    """

    def __init__(self, limit: int, room: Room) -> None:
        self.size = 0
        self.wanted = True
        self.too_large = False
        self.no_room = False
        self._limit = limit
        self._room = room
        self._granted = 0
        # Not a list of pieces: tiny fields cost fifty bytes each, and the memory of pieces of 64 KiB, given
        # back, stays with the process. One that has grown large goes back to the system.
        self._kept = bytearray()
        self._body = 0
        """Where the body begins; 0 before it does."""

    def add_header(self, name: bytes, value: bytes) -> None:
        """Keep one header field; `value` is all that stood after the colon, white space and folding included.

        Whatever the value holds, it stays one field: a scanner shall not see a
        header that ends where the delivered one goes on.
        """
        if b"\n" in value:
            value = _LONE_LF.sub(b"\r\n", _LINE_THAT_IS_NO_FOLD.sub(b"\r\n\t", value))
        field = b"%b:%b\r\n" % (name.translate(_HEADER_NAME), value)
        self.size += len(field)
        if self.size > self._granted and not self._grant():
            return
        if self._body:  # no mail server sends one so late
            end = self._body - len(b"\r\n")
            self._kept[end:end] = field
            self._body += len(field)
        else:
            self._kept += field

    def add_body(self, piece: bytes | memoryview) -> bool:
        """Keep a piece of the body; false when no further piece is wanted."""
        self.size += len(piece)
        if self.size <= self._granted or self._grant():
            self._begin_body()
            self._kept += piece
        return self.wanted

    def together(self) -> bytes | bytearray:
        """Header, empty line and body, once: they are the caller's then, and kept nowhere else.

        Not to be asked for when the message was too large or had no room.
        """
        self._begin_body()
        whole, start = self._kept, self._body
        self._forget()
        if len(whole) > start and not whole.endswith(b"\r\n"):
            whole += b"\r\n"
        return whole

    def release(self) -> None:
        """The message is done with, and no more of it is wanted: its memory is for others."""
        self.wanted = False
        self._forget()
        self._room.give(self._granted)
        self._granted = 0

    def _begin_body(self) -> None:
        if not self._body:
            self._kept += b"\r\n"
            self._body = len(self._kept)

    def _forget(self) -> None:
        self._kept, self._body = bytearray(), 0

    def _grant(self) -> bool:
        """Take room up to the next step above the size; false where nothing is to be kept any more."""
        if not self.wanted:
            return False
        step = min(self._limit, -(-self.size // _STEP) * _STEP) - self._granted
        self.too_large = self.size > self._limit
        self.no_room = not self.too_large and not self._room.take(step)
        if self.too_large or self.no_room:
            self.release()
            return False
        self._granted += step
        return True
