"""The milter protocol as seen from a milter: bytes in, commands out. It touches no socket.

A packet is a length (four bytes, big-endian, of what follows it), a letter and
data. Texts in it end in NUL. The mail server speaks, and the milter answers each
command in turn, unless both agreed that it need not.

    O negotiate    first of all, and never again
    C connect      the SMTP client        H helo           its greeting
    M mail         a message begins       R rcpt           a recipient of it
    T data         all recipients known   L header         one field      N the last was sent
    B body         a piece of it          E end            the message is complete
    A abort        this message ends      Q quit           the session ends
    K quit, but the connection serves a new client
    D define       macros for the command that follows
    U unknown      an SMTP command that the mail server does not know

There is no specification; this follows libmilter's mfdef.h and engine.c, and what
Postfix's milter8.c sends. As in libmilter, a packet has at most 64 KiB.
"""

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import NamedTuple

LARGEST = 65536
"""Bytes of a packet, its letter included (mfdef.h, MILTER_MAX_DATA_SIZE)."""

_LENGTH = Struct("!I")
_THREE = Struct("!III")

_BODY, _DEFINE = ord("B"), ord("D")
_LARGE = 4096
"""Bytes from which on a piece of the body is neither copied nor waited for."""

_TAKES_NOTHING = frozenset(b"HMRLBE")
"""Commands before which Postfix says so when it has no macros: the greeting, a sender, a recipient, a header
field, a piece of the body, the end. TLS stays as long as the session, and what belongs to a message goes with
it: to have none takes nothing away, and is left out here."""


class ProtocolError(Exception):
    """What came is not the milter protocol; nothing that follows on this connection can be understood."""


class Negotiate(NamedTuple):
    """What the mail server can do: bits of `mxweir_milter.fronts.options`."""

    version: int
    actions: int
    steps: int


class Define(NamedTuple):
    """Macros for the command of this letter, which follows; names as in MILTER_README: "i", "{auth_type}"."""

    command: bytes
    macros: Mapping[str, str]


class Connect(NamedTuple):
    """The client's name; `family` is 4, 6, L (a unix socket) or U (unknown, without port and address)."""

    name: bytes
    family: bytes
    port: int
    address: bytes


class Helo(NamedTuple):
    """The client's greeting."""

    name: bytes


class Mail(NamedTuple):
    """A message begins: the sender in angle brackets, and the ESMTP parameters."""

    sender: bytes
    parameters: list[bytes]


class Rcpt(NamedTuple):
    """A recipient in angle brackets, and the ESMTP parameters."""

    recipient: bytes
    parameters: list[bytes]


class Data(NamedTuple):
    """All recipients are known."""


class Header(NamedTuple):
    """A header field; the value lacks the space after the colon, unless HEADER_LEADING_SPACE is agreed."""

    name: bytes
    value: bytes


class EndOfHeader(NamedTuple):
    """All header fields were sent."""


class Body(NamedTuple):
    """A piece of the body; a large one comes as it arrives, in views of what was read: the last `ends` it."""

    piece: bytes | memoryview
    ends: bool = True


class End(NamedTuple):
    """The message is complete; some mail servers send the body's last piece with it."""

    piece: bytes


class Abort(NamedTuple):
    """The message will not be completed; the session goes on."""


class Quit(NamedTuple):
    """The session is over; with `reuse`, another client's follows on the same connection."""

    reuse: bool


class Unknown(NamedTuple):
    """An SMTP command that the mail server does not know."""

    command: bytes


Command = (
    Negotiate
    | Define
    | Connect
    | Helo
    | Mail
    | Rcpt
    | Data
    | Header
    | EndOfHeader
    | Body
    | End
    | Abort
    | Quit
    | Unknown
)


class CommandReader:
    """Makes commands of bytes, however they are cut; holds at most one packet that is not whole."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = 4
        """Bytes to be held until there is anything new to be understood."""
        self._body_left = 0
        """Bytes of a large piece of the body that are yet to come."""

    def feed(self, data: bytes) -> Iterator[Command]:
        """The commands that are whole now, to be taken before the next call.

        Raises ProtocolError in the place where the protocol is left.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data = bytes(self._held)
            self._held.clear()
        at, end = 0, len(data)
        if self._body_left:
            yield (more := self._part(memoryview(data)[: self._body_left], self._body_left))
            at = len(more.piece)
        self._wanted = _LENGTH.size
        while end - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            start, after = at + 5, at + 4 + length  # of what stands behind the letter
            if after > end or not 0 < length <= _LARGE:
                if piece := self._piece(data, start, length):
                    yield piece
                    at = after
                    continue
                if after > end:
                    # Without its letter nobody knows yet whether it is waited for.
                    self._wanted = 4 + length if start <= end else 5
                    break
            letter = data[start - 1]
            if letter != _DEFINE or length != 2 or data[start] not in _TAKES_NOTHING:
                try:
                    command = _READERS[letter](data[start:after])
                except (KeyError, ValueError, IndexError):
                    raise _no_command(letter, length - 1) from None
                yield command
            at = after
        self._held += data[at:]

    def _piece(self, data: bytes, start: int, length: int) -> Body | None:
        """What is there of a large piece of the body, if it is one; ProtocolError for what is no packet."""
        if not 0 < length <= LARGEST:
            raise ProtocolError(f"a packet of {length} bytes; 1 to {LARGEST} are allowed")
        if length <= _LARGE or start > len(data) or data[start - 1] != _BODY:
            return None
        return self._part(memoryview(data)[start : start + length - 1], length - 1)

    def _part(self, part: memoryview, wanted: int) -> Body:
        self._body_left = wanted - len(part)
        return Body(part, not self._body_left)


def _no_command(letter: int, length: int) -> ProtocolError:
    """What is wrong with a packet that no reader understands."""
    shown = bytes([letter])
    if letter not in _READERS:
        return ProtocolError(f"unknown command {shown!r}")
    return ProtocolError(f"command {shown!r} with {length} bytes of data that do not fit it")


def _negotiate(data: bytes) -> Negotiate:
    if len(data) < _THREE.size:
        raise ValueError
    # What may follow is a later version's, and not for us.
    return Negotiate(*_THREE.unpack_from(data))


def _texts(data: bytes) -> list[bytes]:
    """Texts that each end in NUL."""
    *texts, rest = data.split(b"\0")
    if rest or not texts:
        raise ValueError
    return texts


def _define(data: bytes) -> Define:
    if len(data) < 2:
        return _NO_MACROS[data]
    if data[-1]:
        raise ValueError
    words = data[1:-1].decode("utf-8", "surrogateescape").split("\0")
    # A name without a value is what a cut list ends in: libmilter passes over it, too.
    return Define(data[:1], dict(zip(words[::2], words[1::2], strict=False)))


def _connect(data: bytes) -> Connect:
    name, _, rest = data.partition(b"\0")
    family = rest[:1]
    if family == b"U":
        return Connect(name, family, 0, b"")
    if family not in (b"4", b"6", b"L") or len(rest) < 4:
        raise ValueError
    (address,) = _texts(rest[3:])
    return Connect(name, family, int.from_bytes(rest[1:3]), address)


def _one(data: bytes) -> bytes:
    (text,) = _texts(data)
    return text


def _mail(data: bytes) -> Mail:
    sender, *parameters = _texts(data)
    return Mail(sender, parameters)


def _rcpt(data: bytes) -> Rcpt:
    recipient, *parameters = _texts(data)
    return Rcpt(recipient, parameters)


def _header(data: bytes) -> Header:
    name, value, rest = data.split(b"\0")  # as _texts does; there are more of these than of all others
    if rest:
        raise ValueError
    return Header(name, value)


_NO_MACROS = {letter: Define(letter, {}) for letter in (b"", *(bytes([code]) for code in range(256)))}
"""The most frequent of all: no macro of this command has a value."""

_DATA, _END_OF_HEADER, _ABORT, _QUIT, _NEXT_CLIENT = Data(), EndOfHeader(), Abort(), Quit(False), Quit(True)
"""The commands that bring nothing: one of each is enough."""

_READERS: Mapping[int, Callable[[bytes], Command]] = {
    ord("O"): _negotiate,
    ord("D"): _define,
    ord("C"): _connect,
    ord("H"): lambda data: Helo(_one(data)),
    ord("M"): _mail,
    ord("R"): _rcpt,
    ord("T"): lambda _: _DATA,
    ord("L"): _header,
    ord("N"): lambda _: _END_OF_HEADER,
    ord("B"): Body,
    ord("E"): End,
    ord("A"): lambda _: _ABORT,
    ord("Q"): lambda _: _QUIT,
    ord("K"): lambda _: _NEXT_CLIENT,
    ord("U"): lambda data: Unknown(_one(data)),
}
