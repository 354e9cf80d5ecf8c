"""What the limits by content are asked about a message. Pure.

Such limits count by From and Reply-To, which the envelope does not show. What they
need of a message is gathered as it comes in, and becomes one question at its end:
before the scan, because a message that is refused need not be scanned. They hold
for mail that is not scanned as well: no size, and no network of ours that sends
for others, is a way around them. Recipients whom the access list allows do not
count; a message to nobody else asks nothing.
"""

from dataclasses import dataclass, replace

from mxweir.facts import MANY, ContentFacts, Folder, Sender
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir_milter import authors
from mxweir_milter.authors import Field
from mxweir_milter.facts import Client, bytes_of
from mxweir_milter.verdict import Failed

_RECIPIENTS_KEPT = 1000
_DEFERRED_KEPT = 16_384


@dataclass(slots=True)
class Question:
    """What is asked about one message, and what was said to it.

    `instead` is what becomes of a message that is not to be scanned, or None;
    `outcome` is set by whoever asks, and stays None where nobody could.
    """

    facts: ContentFacts
    instead: Failed | None
    outcome: Outcome | None = None


class Asking:
    """The limits by content of one configuration; `by_byte`: one of them counts how large messages are."""

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.by_byte = any(limit.by_byte for limit in limits.limits)
        self.deferred = Deferred()

    def begin(self) -> "Gathered":
        """A message begins."""
        return Gathered(self.folder)


class Deferred:
    """Messages that were charged and then deferred: each is charged once, not at each of its tries.

    Else an outage of the engines would use up a sender's limit, which then refuses for
    good what we have asked to come again. A message is known by its sender, recipients,
    authors and size, for its next try has another queue id and maybe another client. One
    that was deferred is let by once, unless it is deferred again.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()

    def put(self, facts: ContentFacts) -> None:
        """It was charged, and comes again. Where there are very many, the others are forgotten."""
        if len(self._known) >= _DEFERRED_KEPT:
            self._known.clear()
        self._known.add(_known_by(facts))

    def take(self, facts: ContentFacts) -> bool:
        """Whether it was charged before."""
        if not self._known:
            return False
        try:
            self._known.remove(_known_by(facts))
        except KeyError:
            return False
        return True


def _known_by(facts: ContentFacts) -> int:
    """The same at each try of a message."""
    envelope = facts.sender, facts.recipients, facts.recipient_count
    return hash((*envelope, facts.authors, facts.repliers, facts.size_in_bytes))


class Gathered:
    """What of one message the limits may count by."""

    __slots__ = ("_fields", "_folder", "_recipients", "recipient_count")

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._fields = {b"from": Field(), b"reply-to": Field()}
        self._recipients: list[str] = []
        self.recipient_count = 0

    def rcpt(self, address: str) -> None:
        """A recipient whom the access list does not allow."""
        self.recipient_count += 1
        if len(self._recipients) < _RECIPIENTS_KEPT:
            self._recipients.append(address)

    def header(self, name: bytes, value: bytes) -> None:
        """One header field; `value` is all that stood after the colon."""
        # A space before the colon is obsolete, and mail programs read such a field all the same.
        if field := self._fields.get(name.rstrip().lower()):
            field.add(value)

    def facts(self, client: Client, sender: str, user: str, queue_id: str, size: int) -> ContentFacts:
        """The question of the whole message; `size` in bytes."""
        folder = self._folder
        # A queue id is one host's, and may come again after a while; then not with the same sender.
        told = (client.host, queue_id, client.address, sender)
        return ContentFacts(
            client=folder.client[bytes_of(client.address)],
            sender=folder.sender[bytes_of(sender)],
            helo=bytes_of(client.helo),
            sasl_username=bytes_of(user),
            instance=bytes_of("\n".join(told)) if queue_id else b"",
            size_in_bytes=size,
            recipients=tuple([folder.recipient[bytes_of(address)] for address in self._recipients]),
            recipient_count=self.recipient_count,
            authors=self._folded(b"from"),
            repliers=self._folded(b"reply-to"),
        )

    def _folded(self, name: bytes) -> tuple[Sender, ...]:
        """The addresses of a field, folded as an envelope's sender is."""
        folder = self._folder
        field = self._fields[name]
        found = field.addresses()
        if found == (authors.MANY,):
            return (replace(MANY, given=field.mark()),)
        return tuple([folder.sender[address] for address in found])
