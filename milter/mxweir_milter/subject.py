"""A subject with a tag before it. Pure.

    Buy now                     →  [SPAM] Buy now
    =?utf-8?Q?Gr=C3=BC=C3=9Fe?=  →  [SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?=
    [SPAM] Buy now              →  unchanged, however it is encoded

What stood there stays as it was, encoded words (RFC 2047) and folding included.
Two things would not survive and are put otherwise. White space between two
encoded words counts for nothing (§6.2): a tag which is one itself has its space
inside when another follows. And raw bytes that are no UTF-8 have no way through libmilter: they
become encoded words of the charset `unknown-8bit` (RFC 1428 §3), which holds the
same bytes.
"""

import base64
import re
from email.errors import MessageError
from email.header import decode_header, make_header

_LINE = 76
_LOOKED_AT = 500
"""Characters of a subject in which a tag is looked for: decoding more is work that a stranger sets."""

_LONGEST = 60_000
"""Bytes of a value that Postfix takes in one piece; what is encoded may become longer than it was."""

_WORD_BYTES = 42
"""Bytes that fit into an encoded word of 75 characters (RFC 2047 §2)."""

_EIGHT_BIT_WORD = rb"[^\s\x80-\xff]*[\x80-\xff]\S*"
_EIGHT_BIT_WORDS = re.compile(rb"(?<!\S)%b(?:[ \t]+%b)*" % (_EIGHT_BIT_WORD, _EIGHT_BIT_WORD))
"""Looked for at the beginning of a word only: elsewhere too, one word of 60 KB would take half a minute."""

_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_NO_FOLD = re.compile(rb"\n(?![ \t])")


def tagged(original: bytes, tag: str) -> str | None:
    """The field's new value, folded with LF; None when it has the tag already, or would be too long to send.

    `original` is all that stood after the colon.
    """
    text = _text(original)
    if _shown(text).startswith(tag):
        return None
    first = text.split("\n", 1)[0]
    inside = " " if text.startswith("=?") else ""
    head = tag if tag.isascii() else _words(f"{tag}{inside}".encode(), "utf-8")
    space = "" if not text else " " if len(f"Subject: {head} {first}") <= _LINE else "\n "
    value = head + space + text
    return value if len(value.encode()) <= _LONGEST else None


def _text(original: bytes) -> str:
    """The value without white space around it, fit for any front."""
    raw = _CONTROL.sub(b"?", original.replace(b"\r\n", b"\n"))
    raw = _NO_FOLD.sub(b"\n\t", raw.strip(b" \t\n"))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _EIGHT_BIT_WORDS.sub(lambda m: _words(m[0], "unknown-8bit").encode(), raw).decode()


def _words(raw: bytes, charset: str) -> str:
    pieces = (raw[i : i + _WORD_BYTES] for i in range(0, len(raw), _WORD_BYTES))
    return "\n ".join(f"=?{charset}?B?{base64.b64encode(piece).decode()}?=" for piece in pieces)


def _shown(text: str) -> str:
    """What a mail program shows of it; the raw text where it cannot be decoded."""
    beginning = text[:_LOOKED_AT]
    try:
        return str(make_header(decode_header(beginning)))
    except (MessageError, LookupError, ValueError):
        return beginning
