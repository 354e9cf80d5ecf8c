"""What a milter answers, as packets (see `mxweir_milter.fronts.codec`), byte for byte as libmilter's.

One of the constants, or `reply`, ends the answer to a command. The functions are
for the end of a message, before that: changes to it, in their order. A text with
a NUL or a packet that is too large is a ValueError: it would end elsewhere for
the mail server than it does for us.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from mxweir_milter.fronts.codec import LARGEST
from mxweir_milter.fronts.options import Options, Stage


def packet(letter: bytes, data: bytes = b"") -> bytes:
    """A packet; ValueError where it is too large."""
    length = 1 + len(data)
    if length > LARGEST:
        raise ValueError(f"a reply of {length} bytes; at most {LARGEST} fit into a packet")
    return length.to_bytes(4) + letter + data


CONTINUE = packet(b"c")
"""Go on to the next command."""

ACCEPT = packet(b"a")
"""Accept the message; at connect and HELO, all of the session's. No further command for it."""

REJECT = packet(b"r")
"""Refuse with 550 5.7.1; `reply` gives better words."""

TEMPFAIL = packet(b"t")
"""Refuse with 451 4.7.1."""

DISCARD = packet(b"d")
"""Say that it is accepted, and throw it away."""

SKIP = packet(b"s")
"""To a piece of the body: the rest is not wanted."""

PROGRESS = packet(b"p")
"""To the end of a message: the answer takes longer; begin to wait anew. No answer by itself."""

SHUTDOWN = packet(b"4")
"""Refuse with 421 and end the client's session."""


def negotiate(options: Options, symbols: Mapping[Stage, Sequence[str]]) -> bytes:
    """The answer to a Negotiate; `symbols` are the macros wanted at each stage, instead of the usual ones."""
    data = b"".join(number.to_bytes(4) for number in options)
    for stage, names in symbols.items():
        data += stage.to_bytes(4) + _texts(" ".join(names).encode("ascii"))
    return packet(b"O", data)


def reply(code: str, enhanced: str, text: str) -> bytes:
    """Refuse with this SMTP reply: 4xx or 5xx, RFC 3463's code of the same class, one line of text."""
    line = f"{code} {enhanced} {text}".encode("ascii")
    if code[:1] not in ("4", "5") or enhanced[:1] != code[0] or len(code) != 3 or not code.isdigit():
        raise ValueError(f"{code} {enhanced} is no reply that refuses")
    if b"\r" in line or b"\n" in line:
        raise ValueError("a reply has one line")
    # Mail servers take the line for a format string (smfi_setreply).
    return packet(b"y", _texts(line.replace(b"%", b"%%")))


@lru_cache(64)
def add_header(name: bytes, value: bytes) -> bytes:
    """Append a field at the end of the header; the same few are appended to most messages."""
    return packet(b"h", _texts(name, value))


def insert_header(index: int, name: bytes, value: bytes) -> bytes:
    """Insert a field; `index` 0 is the top of the header."""
    return packet(b"i", index.to_bytes(4) + _texts(name, value))


def change_header(index: int, name: bytes, value: bytes) -> bytes:
    """Give the instance `index` of a field, counted from 1, another value; an empty one removes the field."""
    return packet(b"m", index.to_bytes(4) + _texts(name, value))


def change_sender(sender: bytes, parameters: bytes = b"") -> bytes:
    """Another envelope sender."""
    return packet(b"e", _texts(sender, parameters) if parameters else _texts(sender))


def add_recipient(recipient: bytes, parameters: bytes = b"") -> bytes:
    """One more recipient; with parameters, Action.ADD_RECIPIENTS_WITH_PARAMETERS must be agreed."""
    return packet(b"2", _texts(recipient, parameters)) if parameters else packet(b"+", _texts(recipient))


def delete_recipient(recipient: bytes) -> bytes:
    """One recipient fewer."""
    return packet(b"-", _texts(recipient))


def replace_body(body: bytes) -> Iterator[bytes]:
    """Another body, in as many packets as it takes; lines end in CRLF."""
    step = LARGEST - 1
    for start in range(0, max(len(body), 1), step):
        yield packet(b"b", body[start : start + step])


def quarantine(reason: str) -> bytes:
    """Hold the message."""
    return packet(b"q", _texts(reason.encode("ascii")))


def _texts(*texts: bytes) -> bytes:
    data = b"\0".join((*texts, b""))
    if data.count(b"\0") != len(texts):
        raise ValueError("a text with a NUL")
    return data
