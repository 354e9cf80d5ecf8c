"""The spamc protocol as bytes: requests out, one response in. Opens no socket.

    SYMBOLS SPAMC/1.5                 SPAMD/1.1 0 EX_OK
    Content-length: 2187              Content-length: 24
                                      Spam: True ; 1004.2 / 5.0
    …the message…
                                      GTUBE,NO_RECEIVED,TVD_SP

(spamd/PROTOCOL of SpamAssassin 4.0.) What is bounded and checked here, because
a scanner may be slow, broken or not spamd at all: the size of the response, the
status line and its code, that there is a `Spam:` line, that its numbers are
finite, that the body is as long as announced. Code 0 alone proves nothing: spamd
has been seen to answer EX_OK without a score.
"""

import re
from typing import NamedTuple

from mxweir_milter.engines.error import EngineError
from mxweir_milter.verdict import Reason, Scored, scored

LARGEST_RESPONSE = 65536
"""Bytes; all rules of SpamAssassin together have names of some 30 KB."""

_LONGEST_HEAD = 4096

_STATUS = re.compile(rb"SPAMD/\d+\.\d+ +(\d{1,5})(?: +([ -~]{0,100}))?(?=\r?\n|\Z)")
_NUMBER = rb" *(-?\d{1,9}(?:\.\d{1,9})?) *"
_SPAM = re.compile(rb" *(?:True|False|Yes|No) *;" + _NUMBER + rb"/" + _NUMBER, re.IGNORECASE)
_HEADER = re.compile(rb"\n(Spam|Content-length) *:([^\r\n]*)", re.IGNORECASE)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


def symbols_request(prologue: bytes, content: bytes | bytearray) -> tuple[bytes, bytes | bytearray]:
    """Ask for score and symbols of a message, which must end in a line end already; in pieces to send."""
    length = len(prologue) + len(content)
    return b"SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n\r\n%b" % (length, prologue), content


class _Head(NamedTuple):
    """The response's headers; `length` in bytes, None if it is not announced."""

    score: float
    threshold: float
    length: int | None


class ResponseReader:
    """Takes a response in pieces of any size and gives the result once it is complete."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._received = bytearray()
        self._head: _Head | None = None

    def feed(self, piece: bytes) -> Scored | None:
        """More of the response; None as long as it is incomplete. Raises EngineError."""
        self._received += piece
        if len(self._received) > LARGEST_RESPONSE:
            raise _bad(f"more than {LARGEST_RESPONSE} bytes")
        if self._head is None:
            self._head = self._take_head()
        if self._head is None or self._head.length is None or len(self._received) < self._head.length:
            return None
        return self._result(self._head, bytes(self._received[: self._head.length]))

    def end(self) -> Scored:
        """The scanner has closed the connection. Raises EngineError if that was too early."""
        if self._head is None:
            if self._received:
                raise _bad(f"closed within the headers: {bytes(self._received[:80])!r}")
            raise EngineError(Reason.BROKE_OFF, "closed without an answer")
        if self._head.length is not None:
            raise _bad(f"closed after {len(self._received)} of {self._head.length} bytes")
        return self._result(self._head, bytes(self._received))

    def _take_head(self) -> _Head | None:
        """The headers, if they are complete; what is left then is the body."""
        end = _END_OF_HEAD.search(self._received, 0, _LONGEST_HEAD)
        if end is None:
            if len(self._received) >= _LONGEST_HEAD:
                raise _bad(f"headers of more than {_LONGEST_HEAD} bytes")
            return None
        head = _read_head(bytes(self._received[: end.start()]))
        del self._received[: end.end()]
        return head

    def _result(self, head: _Head, body: bytes) -> Scored:
        symbols = body.decode("ascii", "replace").replace("\n", ",").split(",")
        try:
            return scored(head.score, head.threshold, [symbol.strip() for symbol in symbols], self._engine)
        except ValueError as error:
            raise _bad(str(error)) from None


def _read_head(head: bytes) -> _Head:
    status = _STATUS.match(head)
    if status is None:
        raise _bad(f"no status line of spamd: {head[:80]!r}")
    if int(status[1]) != 0:
        raise _bad(f"spamd says {status[1].decode()} {(status[2] or b'').decode()}")
    headers = {name.lower(): value for name, value in _HEADER.findall(head)}
    spam = _SPAM.fullmatch(headers.get(b"spam", b""))
    if spam is None:
        raise _bad(f"no score: {headers.get(b'spam', b'')[:80]!r}")
    length = headers.get(b"content-length")
    return _Head(float(spam[1]), float(spam[2]), None if length is None else _length(length.strip()))


def _length(text: bytes) -> int:
    if not text.isdigit() or len(text) > 9:
        raise _bad(f"Content-length: {text[:30]!r}")
    return int(text)


def _bad(detail: str) -> EngineError:
    return EngineError(Reason.BAD_ANSWER, detail)
