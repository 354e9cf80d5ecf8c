"""Everything about one question, derived once.

Checks, limits and logs read `Facts`; none of them looks at raw attributes or
folds an address again. The folds are cached by the raw bytes: mail comes in
runs, and the same client asks about the same sender again and again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, TypeVar

from mxweir import address
from mxweir.address import (
    NULL_SENDER,
    fold_client,
    fold_domain,
    fold_recipient,
    fold_sender,
    registrable_domain,
)

T = TypeVar("T")

_CACHED = 16_384
"""Folds remembered of each kind; an entry takes about half a kilobyte."""

_LONGEST_REMEMBERED = 512
"""Bytes; what is longer is no honest address and is folded each time, so that it fills no memory."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who connects: address in canonical form, and the network it is counted as."""

    address: str
    network: str


@dataclass(frozen=True, slots=True)
class Sender:
    """Envelope sender: folded address, domain, registrable domain; `given` is as the client wrote it."""

    address: str
    domain: str
    org: str
    given: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """Envelope recipient: mailbox, domain; `given` is as the client wrote it."""

    mailbox: str
    domain: str
    given: str


class Facts(NamedTuple):
    """One question's facts; a text is empty where nothing is known.

    What is folded is shared between questions. The rest stays as raw as Postfix
    sent it, since most answers never look at it.
    """

    client: Client
    sender: Sender
    recipient: Recipient
    helo: bytes
    sasl_username: bytes
    state: bytes
    context: bytes
    instance: bytes
    queue_id: bytes
    size: bytes

    @property
    def size_in_bytes(self) -> int:
        """The message's size: the client's claim until END-OF-MESSAGE; 0 where it is not known."""
        return int(self.size) if self.size.isdigit() and len(self.size) < 19 else 0


NOBODY = Recipient("", "", "")
UNKNOWN = Sender("", "", "", "")
"""Where a limit looks at none."""

MANY = Sender("<many>", "<many>", "<many>", "")
"""More authors, or addresses for replies, than count each; `given` tells one such list from another."""


class ContentFacts(NamedTuple):
    """What is counted of a whole message, its content known; for the rest the same names as in `Facts`.

    `recipients` are those that count, the first thousand of `recipient_count`;
    `authors` and `repliers` the addresses in From and Reply-To. `recipient`,
    `author` and `replier` are the ones among them that a limit is just looking at.
    """

    client: Client
    sender: Sender
    helo: bytes
    sasl_username: bytes
    instance: bytes
    size_in_bytes: int
    recipients: tuple[Recipient, ...]
    recipient_count: int
    authors: tuple[Sender, ...]
    repliers: tuple[Sender, ...]
    state: bytes = b"END-OF-MESSAGE"
    context: bytes = b""
    recipient: Recipient = NOBODY
    author: Sender = UNKNOWN
    replier: Sender = UNKNOWN


AnyFacts = Facts | ContentFacts


def fold_word(raw: bytes) -> str:
    """A HELO name or a SASL user; case does not tell two apart."""
    return _fold_word(raw) if len(raw) <= _LONGEST_REMEMBERED else _fold_word.__wrapped__(raw)


@lru_cache(maxsize=1024)
def _fold_word(raw: bytes) -> str:
    return address.bounded(address.text_of(raw).lower())


READERS: dict[str, Callable[[AnyFacts], str]] = {
    "client_address": attrgetter("client.address"),
    "client_network": attrgetter("client.network"),
    "helo": lambda facts: fold_word(facts.helo),
    "sender": attrgetter("sender.address"),
    "sender_domain": attrgetter("sender.domain"),
    "sender_org": attrgetter("sender.org"),
    "recipient": attrgetter("recipient.mailbox"),
    "recipient_domain": attrgetter("recipient.domain"),
    "sasl_username": lambda facts: fold_word(facts.sasl_username),
}
"""The keys that a limit may count by and an access list may match, and how each is read."""

KEYS = tuple(READERS)

CONTENT_READERS: dict[str, Callable[[ContentFacts], str]] = {
    "from": attrgetter("author.address"),
    "from_org": attrgetter("author.org"),
    "reply_to": attrgetter("replier.address"),
    "reply_to_org": attrgetter("replier.org"),
}
"""The keys that only a message's header shows: the milter counts by them."""

CONTENT_KEYS = tuple(CONTENT_READERS)


class Folds(dict[bytes, T]):
    """Raw bytes → what they fold to. Starts over when it is full.

    A plain dict, and not an LRU: keeping the order of use would touch more
    memory at each hit than the fold itself is worth.
    """

    def __init__(self, fold: Callable[[str], T]) -> None:
        self._fold = fold

    def __missing__(self, raw: bytes) -> T:
        """Fold, and remember."""
        folded = self._fold(address.text_of(raw))
        if len(raw) <= _LONGEST_REMEMBERED:
            if len(self) >= _CACHED:
                self.clear()
            self[raw] = folded
        return folded


class Folder:
    """Folds raw attributes by the settings of `[keys]`; new settings mean a new one."""

    def __init__(self, ipv4_prefix: int = 24, ipv6_prefix: int = 64, recipient_delimiter: str = "+") -> None:
        def client(given: str) -> Client:
            return Client(*fold_client(given, ipv4_prefix, ipv6_prefix))

        def sender(given: str) -> Sender:
            if not given:
                return Sender(NULL_SENDER, NULL_SENDER, NULL_SENDER, given)
            domain = fold_domain(address.split(given)[1])
            return Sender(fold_sender(given), domain, registrable_domain(domain), given)

        def recipient(given: str) -> Recipient:
            if not given:  # at END-OF-MESSAGE Postfix names one only where there is no other
                return NOBODY
            domain = fold_domain(address.split(given)[1])
            mailbox = fold_recipient(given, recipient_delimiter)
            # One text where both are the same: what a question touches has to come from memory.
            return Recipient(mailbox, domain, mailbox if mailbox == given else given)

        self.client = Folds(client)
        self.sender = Folds(sender)
        self.recipient = Folds(recipient)
        # Reads the Public Suffix List now, not while the first client waits.
        sender("warm.up@example.org")

    def key(self, name: str, text: str) -> str:
        """Fold what an operator wrote for the key `name`, as what strangers send is folded."""
        raw = text.encode("utf-8", "surrogateescape")
        if name in ("client_address", "client_network"):
            return self.client[raw].address
        if name in ("sender", "from", "reply_to"):
            return self.sender[b"" if text == NULL_SENDER else raw].address
        if name == "recipient":
            return self.recipient[raw].mailbox
        if name in ("sender_domain", "sender_org", "recipient_domain", "from_org", "reply_to_org"):
            return text if text == NULL_SENDER else fold_domain(text)
        return fold_word(raw)
