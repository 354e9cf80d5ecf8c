"""Messages to send: an honest one, two kinds of spam, and whatever else a test needs.

The scores are those of SpamAssassin 4.0.1 with its rules as shipped, no network
and a client with a reverse name; the texts are chosen to stay far from any
threshold near those figures, because the scores of other versions differ.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, make_msgid

HONEST = """\
Hello,

here are the minutes of our meeting on Tuesday. The next one is on the 3rd.

Bert
"""
"""About 1 point."""

ADVANCE_FEE = """\
Dear friend,

I am the attorney of a late customer who left US$ 18,500,000 with a bank here.
I seek your consent to present you as his next of kin. This is risk free.
"""
"""About 9 points, 5 being spam."""

GTUBE = """\
XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X
"""
"""About 1000 points: the pattern that every SpamAssassin knows as a test (GTUBE)."""


def new_message_id() -> str:
    """A Message-ID that no other message has."""
    return make_msgid(domain="sender.example")


def letter(
    body: str = HONEST,
    message_id: str = "",
    sender: str = "Bert <bert@sender.example>",
    recipient: str = "Anna <anna@example.org>",
    subject: str = "Minutes of Tuesday",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A message with CRLF line ends: `headers`, then those of an honest mail program, then the body."""
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [
        f"From: {sender}",
        f"To: {recipient}",
        f"Subject: {subject}",
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"Message-ID: {message_id or new_message_id()}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "",
        *body.splitlines(),
    ]
    return ("\r\n".join(lines) + "\r\n").encode()
