"""What an SMTP session tells about its client and about one message.

Texts are decoded as UTF-8 with surrogate escapes, so that no byte is lost on
the way to a scanner; whoever shows them to a person escapes them (`mxweir.log`
does).
"""

from collections.abc import Mapping
from typing import NamedTuple

Macros = Mapping[str, str]
"""What the mail server says beside a command, by the names of MILTER_README ("i", "{auth_authen}")."""

CONNECT_MACROS = ("j",)
HELO_MACROS = ("{tls_version}", "{cipher}", "{cipher_bits}")
MAIL_MACROS = ("i", "{auth_authen}")
DATA_MACROS = ("i",)
END_MACROS = ("i",)
"""The macros that a session reads at each step; all are in Postfix's default `milter_*_macros`."""


class Tls(NamedTuple):
    """The encryption of a session; `bits` is the key's length."""

    version: str
    cipher: str
    bits: str


class Client(NamedTuple):
    """Who speaks to us.

    `name` is the verified host name or "unknown", `address` its IP address or
    empty, `host` our own host's name as Postfix gives it.
    """

    name: str = "unknown"
    address: str = ""
    helo: str = ""
    host: str = ""
    tls: Tls | None = None


class Envelope(NamedTuple):
    """One message's envelope.

    `sender` is without angle brackets, empty for the null sender; `recipients`
    holds the first of them, `recipient_count` counts all.
    """

    sender: str = ""
    recipients: tuple[str, ...] = ()
    recipient_count: int = 0
    sasl_username: str = ""
    queue_id: str = ""
    smtputf8: bool = False


def text_of(raw: bytes) -> str:
    """Bytes of an SMTP command as text that `bytes_of` turns back into the same bytes."""
    return raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The bytes that `text_of` was given."""
    return text.encode("utf-8", "surrogateescape")
