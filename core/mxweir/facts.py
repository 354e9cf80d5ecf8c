"""Everything about one question, derived once.

Checks, limits and logs read `Facts`; none of them looks at raw attributes or
folds an address again. The folds are cached by the raw bytes: mail comes in
runs, and the same client asks about the same sender again and again.
"""

from functools import lru_cache
from typing import NamedTuple

from mxweir import address
from mxweir.address import (
    NULL_SENDER,
    fold_client,
    fold_domain,
    fold_recipient,
    fold_sender,
    registrable_domain,
)

KEYS = (
    "client_address",
    "client_network",
    "helo",
    "sender",
    "sender_domain",
    "sender_org",
    "recipient",
    "recipient_domain",
    "sasl_username",
)
"""The facts that a limit may count by and an access list may match."""

_CACHED = 8192
"""Folds remembered of each kind; an entry takes about half a kilobyte."""


class Facts(NamedTuple):
    """One question's facts. The first fields are `KEYS`, folded; an empty text means: not known.

    `sender_given` and `recipient_given` are the addresses as the client wrote
    them, for the log alone. `size` is in bytes: the client's claim until
    END-OF-MESSAGE. `context` is Postfix's policy_context.
    """

    client_address: str
    client_network: str
    helo: str
    sender: str
    sender_domain: str
    sender_org: str
    recipient: str
    recipient_domain: str
    sasl_username: str
    state: str
    context: str
    instance: str
    queue_id: str
    sender_given: str
    recipient_given: str
    size: int
    recipient_count: int


class Folder:
    """Folds raw attributes by the settings of `[keys]`; caches are its own, so new settings mean a new one."""

    def __init__(self, ipv4_prefix: int = 24, ipv6_prefix: int = 64, recipient_delimiter: str = "+") -> None:
        @lru_cache(maxsize=_CACHED)
        def client(raw: bytes) -> tuple[str, str]:
            """Address and network."""
            return fold_client(address.text_of(raw), ipv4_prefix, ipv6_prefix)

        @lru_cache(maxsize=_CACHED)
        def sender(raw: bytes) -> tuple[str, str, str, str]:
            """As given, folded, domain, registrable domain."""
            given = address.text_of(raw)
            if not given:
                return given, NULL_SENDER, NULL_SENDER, NULL_SENDER
            domain = fold_domain(address.split(given)[1])
            return given, fold_sender(given), domain, registrable_domain(domain)

        @lru_cache(maxsize=_CACHED)
        def recipient(raw: bytes) -> tuple[str, str, str]:
            """As given, mailbox, domain."""
            given = address.text_of(raw)
            return given, fold_recipient(given, recipient_delimiter), fold_domain(address.split(given)[1])

        @lru_cache(maxsize=_CACHED)
        def word(raw: bytes) -> str:
            """A HELO name or a SASL user: case does not tell two apart."""
            return address.bounded(address.text_of(raw).lower())

        self.client = client
        self.sender = sender
        self.recipient = recipient
        self.word = word
        sender(b"warm.up@example.org")  # reads the Public Suffix List now, not while the first client waits

    def key(self, name: str, text: str) -> str:
        """Fold a value that an operator wrote for the key `name`, so that it equals what strangers' values fold to."""
        raw = text.encode("utf-8", "surrogateescape")
        if name in ("client_address", "client_network"):
            return self.client(raw)[0]
        if name == "sender":
            return self.sender(b"" if text == NULL_SENDER else raw)[1]
        if name == "recipient":
            return self.recipient(raw)[1]
        if name in ("sender_domain", "sender_org", "recipient_domain"):
            return text if text == NULL_SENDER else fold_domain(text)
        return self.word(raw)
