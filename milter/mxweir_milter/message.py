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

from mxweir_milter.facts import Client, Envelope

_LONE_LF = re.compile(rb"(?<!\r)\n")
_LINE_THAT_IS_NO_FOLD = re.compile(rb"\r?\n(?![ \t])")
_NOT_IN_A_HEADER_NAME = re.compile(rb"[\x00-\x20\x7f-\xff:]")


@dataclass(frozen=True, slots=True)
class Message:
    """One message to scan.

    `content` is header and body as the client sent them, with CRLF line ends
    and one at the very end. `arrived` is in seconds since the epoch.
    """

    client: Client
    envelope: Envelope
    content: bytes
    arrived: float


class Content:
    """Collects one message's header and body, in memory up to `limit` bytes and not beyond.

    `size` goes on counting what arrives; once it is over the limit, all that
    was kept is let go and `too_large` is true for good.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0
        self.too_large = False
        self._limit = limit
        self._header = bytearray()
        self._body = bytearray()

    def add_header(self, name: bytes, value: bytes) -> None:
        """Keep one header field; `value` is all that stood after the colon, white space and folding included.

        Whatever the value holds, it stays one field: a scanner shall not see a
        header that ends where the delivered one goes on.
        """
        if b"\n" in value:
            value = with_crlf(_LINE_THAT_IS_NO_FOLD.sub(b"\r\n\t", value))
        self._keep(self._header, _NOT_IN_A_HEADER_NAME.sub(b"?", name) + b":" + value + b"\r\n")

    def add_body(self, piece: bytes) -> bool:
        """Keep a piece of the body; false when no further piece is wanted."""
        self._keep(self._body, piece)
        return not self.too_large

    def together(self) -> bytes:
        """Header, empty line and body. Not to be asked for when the message was too large."""
        body = with_crlf(bytes(self._body))
        end = b"\r\n" if body and not body.endswith(b"\r\n") else b""
        return b"".join((self._header, b"\r\n", body, end))

    def _keep(self, where: bytearray, piece: bytes) -> None:
        self.size += len(piece)
        if self.too_large:
            return
        if self.size > self._limit:
            self.too_large = True
            self._header, self._body = bytearray(), bytearray()
        else:
            where += piece


def with_crlf(data: bytes) -> bytes:
    """End every line in CRLF."""
    if data.count(b"\n") == data.count(b"\r\n"):
        return data
    return _LONE_LF.sub(b"\r\n", data)
