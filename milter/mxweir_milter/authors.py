r"""Who has written a message and who is to be answered, as its header says. Pure.

From and Reply-To are lists of addresses (RFC 5322 §3.4) that strangers write, and
what reads them in the end is not one program but many. So the rule is ours:

    Anna <anna@a.example>, b@b.example    anna@a.example, b@b.example
    "ceo@bank.example" <x@y.example>      x@y.example: a display name is no address
    Team: a@a.example, b@b.example;       both: a group has no address of its own
    a@a.example (or c@c.example)          a@a.example: comments are left out
    <@relay.example:a@a.example>          a@a.example: nor does a route count
    "quoted local"@a.example              quoted local@a.example, as Postfix writes envelopes
    Anna anna@a.example                   anna@a.example: each word with an @, where there are no brackets
    From: a@a.example, twice              all fields of a name count as one list
    "const@a.example                      const@a.example: what no rule finds, any word with an @ is
    <a@a.example@.>                       a@a.example: nor does an @ without a domain count

A list of more than eight different addresses, of more than a hundred fields, or one
that takes too long to read, is not looked into further: all such lists are one key,
called `<many>`, and each is a value of its own (`mark`).

The time is bounded by construction. Each expression either takes what it begins
with or fails at once (possessive, no two ways to match), so that every byte is looked
at once; and there is a most of pieces, as there is of bytes.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b

MANY = b"<many>"
"""What stands for more addresses than are counted."""

MOST = 8
"""Different addresses that count each."""

_MOST_BYTES = 16_384
"""Of all fields of a name together. Postfix hands over 60,000 of one; they are kept beside `max_memory`."""

_MOST_FIELDS = 100
"""Of one name. RFC 5322 has one; thousands of tiny ones would take many times their size in memory."""

_MOST_PIECES = 4096
"""Of all fields of a name together; some microseconds each."""

_PIECE = re.compile(
    rb'"(?:[^"\\]++|\\.)*+\\?+"?+'  # a quoted string, to the end where nothing closes it
    rb'|\[[^][()<>,;"]*+\]'  # an address literal
    rb'|[^][()<>,;:"]++'
    rb"|.",
    re.DOTALL,
)
_COMMENT_PIECE = re.compile(rb"[()]|\\.|[^()\\]++|\\", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_LONGEST_UNQUOTED = 1000
_SPECIALS = bytes.maketrans(b'"()<>,;:[]\\', b" " * 11)
_INVISIBLE = bytes({*range(32), 127} - set(b"\t\r\n"))
"""Control characters: no address has any, and each would make another of one that looks the same."""

_HIDE = bytes.maketrans(b" \t\r\n@", b"\x00\x00\x00\x00\x01")
_SHOW = bytes.maketrans(b"\x00\x01", b" @")


class TooLongError(Exception):
    """There is more in a list than is looked at."""


class Field:
    """The values of all fields of one name in one message."""

    __slots__ = ("_size", "_too_much", "_values")

    def __init__(self) -> None:
        self._values: list[bytes] = []
        self._size = 0
        self._too_much = False

    def add(self, value: bytes) -> None:
        """One more field of that name; `value` is all that stood after the colon."""
        self._size += 1 + len(value)
        self._too_much = self._too_much or self._size > _MOST_BYTES or len(self._values) == _MOST_FIELDS
        if not self._too_much:
            self._values.append(value.translate(None, _INVISIBLE))

    def addresses(self) -> tuple[bytes, ...]:
        """The different addresses in the order in which they stand there, or MANY."""
        if self._too_much:
            return (MANY,)
        reader = _Reader()
        try:
            for value in self._values:
                reader.read(value)
            if not reader.found:
                reader.take_words(b" ".join(self._values).translate(_SPECIALS))
        except TooLongError:
            return (MANY,)
        return tuple(reader.found)

    def mark(self) -> str:
        """What tells these values from others, where they are too many for their addresses to be told."""
        return blake2b(b"\n".join(self._values), digest_size=16).hexdigest()


class _Reader:
    """Reads the values of one name; raises TooLongError when they are too much."""

    def __init__(self) -> None:
        self.found: dict[bytes, None] = {}
        self._left = _MOST_PIECES

    def read(self, value: bytes) -> None:
        """Find the addresses in one value."""
        words: list[bytes] = []
        inside = False
        for piece in self._pieces(value):
            if piece == b"<":
                words, inside = [], True
            elif piece == b":":
                words = []
            elif piece in (b">", b",", b";"):
                self._end(words, inside)
                words, inside = [], False
            elif piece.startswith(b'"'):
                words.append(_unquoted(piece).translate(_HIDE))
            else:
                words.append(piece)
        self._end(words, inside)

    def take_words(self, text: bytes) -> None:
        """Find the words that are addresses."""
        for word in b" ".join(text.split()).replace(b" @", b"@").replace(b"@ ", b"@").split(b" "):
            if b"@" in word:
                self._take(word)

    def _end(self, words: list[bytes], inside: bool) -> None:
        """One address of a list is complete: between brackets it is all there is."""
        text = b"".join(words)
        if inside:
            self._take(b"".join(text.split()))
        elif b"@" in text:
            self.take_words(text)

    def _take(self, address: bytes) -> None:
        """Keep the address, if it is one."""
        # Nor does an @ count with no domain behind it, as in `mxweir.address`.
        local, _, domain = address.translate(_SHOW).strip(b"'").rstrip(b"@.").rpartition(b"@")
        if local and (domain := domain.strip(b".")):
            self.found[b"%b@%b" % (local, domain)] = None
            if len(self.found) > MOST:
                raise TooLongError

    def _pieces(self, value: bytes) -> Iterator[bytes]:
        """The value in pieces, without comments."""
        at = 0
        while at < len(value):
            self._count()
            if value[at : at + 1] == b"(":
                at = self._after_comment(value, at)
                continue
            match = _PIECE.match(value, at)
            if match is None:  # never: the last alternative takes any byte
                return
            at = match.end()
            yield match[0]

    def _after_comment(self, value: bytes, at: int) -> int:
        depth = 0
        while match := _COMMENT_PIECE.match(value, at):
            self._count()
            at = match.end()
            depth += (match[0] == b"(") - (match[0] == b")")
            if not depth:
                break
        return at

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooLongError


def _unquoted(piece: bytes) -> bytes:
    """What a quoted string says; one that is far too long for an address stays as it is."""
    said = piece[1:].removesuffix(b'"')
    return said if len(said) > _LONGEST_UNQUOTED else _ESCAPED.sub(rb"\1", said)
