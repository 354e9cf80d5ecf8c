"""Where the private Postfix delivers: one maildir for every recipient.

A maildir and not an SMTP sink, because a message in `new/` has survived the
whole of Postfix: it was queued, delivered and removed from the queue. One file
is one delivery to one recipient, so whatever is lost or double shows as a count.
"""

from collections import Counter
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

from mxweir_ops.lab.process import wait_until


class Delivery(NamedTuple):
    """One message as it was delivered to one recipient."""

    raw: bytes
    """The file: what the virtual delivery agent put on top (Return-Path, Delivered-To), then the message."""

    @property
    def message(self) -> EmailMessage:
        """The same, parsed."""
        return message_from_bytes(self.raw, policy=policy.default)

    def header(self, name: str) -> str | None:
        """The first such header as it stands, unfolded; None without one."""
        values = self.headers(name)
        return values[0] if values else None

    def headers(self, name: str) -> list[str]:
        """Each such header as it stands, unfolded."""
        parsed = message_from_bytes(self.raw)
        return [" ".join(str(value).split()) for value in parsed.get_all(name, [])]

    @property
    def recipient(self) -> str:
        """The envelope recipient, from Delivered-To."""
        return self.header("Delivered-To") or ""

    @property
    def message_id(self) -> str:
        """The Message-ID."""
        return self.header("Message-ID") or ""


class Maildir:
    """The deliveries of one private Postfix."""

    def __init__(self, path: Path):
        self.path = path

    def deliveries(self) -> list[Delivery]:
        """All so far, oldest first."""
        files = sorted((self.path / "new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [Delivery(path.read_bytes()) for path in files]

    def find(self, message_id: str) -> list[Delivery]:
        """The deliveries with that Message-ID, one for each recipient."""
        return [delivery for delivery in self.deliveries() if delivery.message_id == message_id]

    def wait_for(self, message_id: str, recipients: int = 1, seconds: float = 60.0) -> list[Delivery]:
        """The deliveries with that Message-ID, once there are at least so many of them.

        Raises TimeoutError when they have not arrived in that many seconds.
        """
        if not wait_until(lambda: len(self.find(message_id)) >= recipients, seconds):
            raise TimeoutError(f"{len(self.find(message_id))} of {recipients} deliveries of {message_id}")
        return self.find(message_id)

    def counts(self) -> Counter[str]:
        """How many deliveries each Message-ID had."""
        return Counter(delivery.message_id for delivery in self.deliveries())
