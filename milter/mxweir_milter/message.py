"""What a scanner sees: the message put together again from the milter's callbacks.

Postfix gives header fields one by one, their lines ended by LF alone, and the
body in pieces of up to 64 KiB with CRLF. Two things a scanner must never get
are put right here. A message that does not end in a line end (a client can send
one by BDAT) made SpamAssassin wait for more until it timed out, so a final CRLF
is added before anybody computes a length. And a lone LF becomes CRLF, as
Postfix does on delivery. A lone CR stays: it is content, and no mail server
takes it for a line end.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from mxweir_milter.facts import Client, Envelope
from mxweir_milter.limits import Question

_LONE_LF = re.compile(rb"\n(?<!\r\n)")
"""It begins with the LF, and so is found ten times as fast as when it begins with what stands before."""

_LINE_THAT_IS_NO_FOLD = re.compile(rb"\r?\n(?![ \t])")
_HEADER_NAME = bytes(code if 0x20 < code < 0x7F and code != ord(":") else ord("?") for code in range(256))
"""What stands for each byte of a header field's name."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to scan.

    `content` is header and body as the client sent them, with CRLF line ends
    and one at the very end. `arrived` is in seconds since the epoch. `question` is for
    the limits by content, to be asked first.
    """

    client: Client
    envelope: Envelope
    content: bytes
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
    when other messages fill the memory.
    """

    def __init__(self, limit: int, room: Room) -> None:
        self.size = 0
        self.too_large = False
        self.no_room = False
        self._limit = limit
        self._room = room
        self._kept = 0
        # Not lists of pieces: tiny fields cost fifty bytes each, and the memory of pieces of 64 KiB, given
        # back, stays with the process. One that has grown large goes back to the system.
        self._header = bytearray()
        self._body = bytearray()

    def add_header(self, name: bytes, value: bytes) -> None:
        """Keep one header field; `value` is all that stood after the colon, white space and folding included.

        Whatever the value holds, it stays one field: a scanner shall not see a
        header that ends where the delivered one goes on.
        """
        folded = with_crlf(_LINE_THAT_IS_NO_FOLD.sub(b"\r\n\t", value)) if b"\n" in value else value
        field = name.translate(_HEADER_NAME) + b":" + folded + b"\r\n"
        if self._has_room_for(field):
            self._header += field

    def add_body(self, piece: bytes) -> bool:
        """Keep a piece of the body; false when no further piece is wanted."""
        if self._has_room_for(piece):
            self._body += piece
        return not (self.too_large or self.no_room)

    def together(self) -> bytes:
        """Header, empty line and body, once: what was collected is in them and nowhere else any more.

        Not to be asked for when the message was too large or had no room.
        """
        body = with_crlf(self._body)
        end = b"\r\n" if body and not body.endswith(b"\r\n") else b""
        whole = b"".join((self._header, b"\r\n", body, end))
        self._header, self._body = bytearray(), bytearray()
        return whole

    def release(self) -> None:
        """The message is done with: its memory is for others."""
        self._header, self._body = bytearray(), bytearray()
        self._room.give(self._kept)
        self._kept = 0

    def _has_room_for(self, piece: bytes) -> bool:
        self.size += len(piece)
        if self.too_large or self.no_room:
            return False
        self.too_large = self.size > self._limit
        self.no_room = not self.too_large and not self._room.take(len(piece))
        if self.too_large or self.no_room:
            self.release()
            return False
        self._kept += len(piece)
        return True


def with_crlf(data: bytes | bytearray) -> bytes | bytearray:
    """End every line in CRLF."""
    # There hardly ever is one, and to look for it is dear enough with a large message.
    return _LONE_LF.sub(b"\r\n", data) if _LONE_LF.search(data) else data
