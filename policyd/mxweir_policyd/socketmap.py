"""Postfix's socketmap protocol, without any I/O.

Requests and replies are netstrings, `LENGTH:CONTENT,` (socketmap_table(5)). A
request is `NAME KEY`; a reply `OK DATA`, `NOTFOUND `, `TEMP reason` or
`PERM reason`.
"""

from typing import NamedTuple

MAX_REQUEST = 4096
"""Bytes in a request; a domain has at most 253 and an address 320."""


class SocketmapError(Exception):
    """What came in is no socketmap request; the text is from a closed set."""


class Lookup(NamedTuple):
    """A key asked of a table."""

    table: str
    key: str


class LookupReader:
    """Turns one connection's bytes into lookups."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Lookup]:
        """Take the next bytes; returns the lookups that they complete. Raises SocketmapError: close then."""
        buffer = self._buffer
        buffer += data
        found: list[Lookup] = []
        while (content := self._take()) is not None:
            table, space, key = content.decode("utf-8", "backslashreplace").partition(" ")
            if not space:
                raise SocketmapError("request without a key")
            found.append(Lookup(table, key))
        return found

    def _take(self) -> bytes | None:
        buffer = self._buffer
        colon = buffer.find(b":", 0, 6)
        digits = bytes(buffer[: colon if colon >= 0 else 6])
        if (digits and not digits.isdigit()) or (colon < 0 and len(buffer) >= 6) or colon == 0:
            raise SocketmapError("not a netstring")
        if colon < 0:
            return None
        length = int(digits)
        if length > MAX_REQUEST:
            raise SocketmapError("request too large")
        end = colon + 1 + length
        if len(buffer) <= end:
            return None
        if buffer[end] != ord(","):
            raise SocketmapError("not a netstring")
        content = bytes(buffer[colon + 1 : end])
        del buffer[: end + 1]
        return content


def format_answer(status: str, data: str = "") -> bytes:
    """One reply, as a netstring."""
    content = f"{status} {data}".encode()
    return b"%d:%s," % (len(content), content)
