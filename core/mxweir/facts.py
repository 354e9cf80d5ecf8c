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

_CACHED = 16384
"""Folds remembered of each kind; an entry takes about half a kilobyte."""


class Facts(NamedTuple):
    """One question's facts.

    Folded texts first, empty where nothing is known; `sender_given` and
    `recipient_given` are the addresses as the client wrote them, for the log.
    Then, as raw as Postfix sent them, since most answers need no more: the
    state, its policy_context, the instance, the queue id and the size.
    """

    client_address: str
    client_network: str
    sender: str
    sender_domain: str
    sender_org: str
    sender_given: str
    recipient: str
    recipient_domain: str
    recipient_given: str
    helo: str
    sasl_username: str
    state: bytes
    context: bytes
    instance: bytes
    queue_id: bytes
    size: bytes

    @property
    def size_in_bytes(self) -> int:
        """The message's size: the client's claim until END-OF-MESSAGE; 0 where it is not known."""
        return int(self.size) if self.size.isdigit() and len(self.size) < 19 else 0


class Folder:
    """Folds raw attributes by the settings of `[keys]`; the caches are its own, so new settings mean a new one."""

    def __init__(self, ipv4_prefix: int = 24, ipv6_prefix: int = 64, recipient_delimiter: str = "+") -> None:
        @lru_cache(maxsize=_CACHED)
        def client(raw: bytes) -> tuple[str, str]:
            """Address and network."""
            return fold_client(address.text_of(raw), ipv4_prefix, ipv6_prefix)

        @lru_cache(maxsize=_CACHED)
        def sender(raw: bytes) -> tuple[str, str, str, str]:
            """Folded, domain, registrable domain, as given."""
            given = address.text_of(raw)
            if not given:
                return NULL_SENDER, NULL_SENDER, NULL_SENDER, given
            domain = fold_domain(address.split(given)[1])
            return fold_sender(given), domain, registrable_domain(domain), given

        @lru_cache(maxsize=_CACHED)
        def recipient(raw: bytes) -> tuple[str, str, str]:
            """Mailbox, domain, as given."""
            given = address.text_of(raw)
            return fold_recipient(given, recipient_delimiter), fold_domain(address.split(given)[1]), given

        @lru_cache(maxsize=_CACHED)
        def words(helo: bytes, user: bytes) -> tuple[str, str]:
            """HELO name and SASL user: case does not tell two apart."""
            return address.bounded(address.text_of(helo).lower()), address.bounded(
                address.text_of(user).lower()
            )

        self.client = client
        self.sender = sender
        self.recipient = recipient
        self.words = words
        sender(b"warm.up@example.org")  # reads the Public Suffix List now, not while the first client waits

    def key(self, name: str, text: str) -> str:
        """Fold a value that an operator wrote for the key `name`, so that it equals what strangers' values fold to."""
        raw = text.encode("utf-8", "surrogateescape")
        if name in ("client_address", "client_network"):
            return self.client(raw)[0]
        if name == "sender":
            return self.sender(b"" if text == NULL_SENDER else raw)[0]
        if name == "recipient":
            return self.recipient(raw)[0]
        if name in ("sender_domain", "sender_org", "recipient_domain"):
            return text if text == NULL_SENDER else fold_domain(text)
        return self.words(raw, b"")[0]
