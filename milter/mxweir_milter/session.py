"""One SMTP session, in our own words: it knows neither libmilter nor a socket, and reads no clock.

    client   connect → helo →┐
    message                  └→ mail → rcpt… → data → header… → body… → end ─┬→ Concluded
                                ↑                                            └→ Wanted → scan → conclude
                                └─ the next message of the session, or one after abort

A front calls these steps as the mail server reports them, hands a `Wanted` to a
scanner, and tells the mail server what is `Concluded`. The session itself
decides: which mail is passed over, what is too large, what the answer is.

A front must get an answer even if the session is at fault: `fail` says that a
step went wrong, and makes the end of the message come out as unscanned.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mxweir.deadline import Deadline
from mxweir.events import Scanned
from mxweir.facts import ContentFacts
from mxweir.ratelimit.reply import reply_to
from mxweir_milter import changes
from mxweir_milter.allow import Allowed
from mxweir_milter.changes import Answer, Forged
from mxweir_milter.facts import Client, Envelope, Macros, Tls, text_of
from mxweir_milter.limits import Asking, Gathered, Question
from mxweir_milter.message import Content, Message, Room
from mxweir_milter.policy import Ruling, Treatment, Treatments, decide
from mxweir_milter.verdict import Failed, Outcome, Reason, Result, Scored

_RESERVE = 0.1
"""Seconds before the deadline at which scanning ends, or a twentieth of it where that is less.

The deadline is that of the answer. When an engine falls silent, hundreds of scans end in the same moment, and
each is yet to be cancelled, its answer made, sent, and taken by a mail server that has as many to take: 200
were seen to need up to 0.16 s on two cores that Postfix shared.
"""

_RECIPIENTS_KEPT = 1000
_OVERRULED_TOLD = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration says about scanning; `deadline` in seconds, `max_scan_size` in bytes.

    `allowed` is None where no entry of the access list allows anything, `limits` where
    none counts by content.
    """

    deadline: float
    max_scan_size: int
    treatments: Treatments
    allowed: Allowed | None
    skip: frozenset[str]
    mynetworks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    has_engine: bool
    limits: Asking | None = None


class Concluded(NamedTuple):
    """A message's answer, and the record of what happened."""

    answer: Answer
    event: Scanned


class Wanted(NamedTuple):
    """A message that must be scanned before this deadline; then `Session.conclude` wants the result."""

    message: Message
    deadline: Deadline


@dataclass(slots=True)
class _Transaction:
    """One message on its way in; the policy is the one that was in force when it began.

    `treatments` holds each once, however many recipients have it; `allowed`
    counts the recipients whom the access list allows, the last time by `rule`.
    `gathered` is None where no limit counts by content; `skipped` says why a message
    is let by, or only counted, and not scanned; it is None until all recipients are known.
    `charged_before` is set where an earlier try of it, which was deferred, was charged.
    """

    policy: Policy
    content: Content
    gathered: Gathered | None = None
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    recipient_count: int = 0
    sasl_username: str = ""
    queue_id: str = ""
    smtputf8: bool = False
    treatments: set[Treatment] = field(default_factory=set)
    allowed: int = 0
    rule: str = ""
    skipped: str | None = None
    question: Question | None = None
    charged_before: ContentFacts | None = None
    forged: Forged = field(default_factory=Forged)
    subject: bytes | None = None
    failed: bool = False
    ended: float = 0.0

    @property
    def is_counted(self) -> bool:
        """Whether limits by content count it."""
        return self.gathered is not None and self.gathered.recipient_count > 0

    def envelope(self) -> Envelope:
        """What the scanner is told of it."""
        return Envelope(
            self.sender,
            tuple(self.recipients),
            self.recipient_count,
            self.sasl_username,
            self.queue_id,
            self.smtputf8,
        )


class Session:
    """One SMTP session; not for several threads at once, but for one after the other."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        room: Room,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._monotonic = monotonic
        self._room = room
        self._client = Client()
        self._transaction: _Transaction | None = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and is not done with."""
        return self._transaction is not None

    def connect(self, name: str, address: str, macros: Macros) -> None:
        """A client has connected; `address` is its IP address, empty if it has none.

        Where no host name is verified, Postfix gives `[address]` in its place, as
        Sendmail does; in its own headers and logs it says "unknown", and so do we.
        """
        known = name if not name.startswith("[") else "unknown"
        self._client = Client(known, address.removeprefix("IPv6:"), host=macros.get("j", ""))

    def helo(self, name: str, macros: Macros) -> None:
        """The client has greeted, again after STARTTLS."""
        version = macros.get("{tls_version}", "")
        tls = Tls(version, macros.get("{cipher}", ""), macros.get("{cipher_bits}", "")) if version else None
        client = self._client
        self._client = Client(client.name, client.address, name, client.host, tls)

    def mail(self, sender: bytes, params: Sequence[bytes], macros: Macros) -> None:
        """A message begins."""
        self._done()
        self._transaction = transaction = self._begin()
        transaction.sender = _path(sender)
        transaction.sasl_username = macros.get("{auth_authen}", "")
        transaction.queue_id = macros.get("i", "")
        transaction.smtputf8 = any(param.upper() == b"SMTPUTF8" for param in params)

    def rcpt(self, recipient: bytes) -> None:
        """A recipient that the mail server has accepted."""
        transaction = self._current()
        address = _path(recipient)
        transaction.recipient_count += 1
        if len(transaction.recipients) < _RECIPIENTS_KEPT:
            transaction.recipients.append(address)
        treatment = transaction.policy.treatments.of(address)
        if rule := self._allows(transaction, address):
            transaction.allowed += 1
            transaction.rule = rule
            treatment = treatment.spared(rule)
        elif transaction.gathered is not None:
            transaction.gathered.rcpt(address)
        transaction.treatments.add(treatment)

    def data(self, macros: Macros, *, heard: bool = True) -> Concluded | None:
        """All recipients are known; an answer now means that the message itself is of no interest.

        Where the mail server does not wait to be answered here (not `heard`), `end` says so.
        """
        transaction = self._current()
        transaction.queue_id = macros.get("i", "") or transaction.queue_id
        transaction.skipped = self._passed_over(transaction)
        if not transaction.skipped:
            return None
        transaction.content.release()
        return self._let_by(transaction) if heard and not transaction.is_counted else None

    def header(self, name: bytes, value: bytes) -> None:
        """One header field; `value` is all that stood after the colon."""
        transaction = self._transaction or self._current()
        transaction.forged.see(name)
        if transaction.subject is None and name.lower() == b"subject":
            transaction.subject = value
        if transaction.gathered is not None:
            transaction.gathered.header(name, value)
        transaction.content.add_header(name, value)

    def body(self, piece: bytes | memoryview) -> bool:
        """A piece of the body; false when no further piece is wanted."""
        transaction = self._current()
        limits = transaction.policy.limits
        if limits is not None and limits.by_byte:
            transaction.content.add_body(piece)
            return True
        return transaction.content.add_body(piece)

    def end(self, macros: Macros) -> Wanted | Concluded:
        """The message is complete: it must be scanned, or its answer is known."""
        transaction = self._current()
        transaction.ended = self._monotonic()
        transaction.queue_id = macros.get("i", "") or transaction.queue_id
        if transaction.skipped is None:  # versions 2 and 3 of the protocol have no DATA
            transaction.skipped = self._passed_over(transaction)
        if transaction.skipped and not transaction.is_counted:
            return self._let_by(transaction)
        if transaction.forged.too_many and not transaction.skipped:
            self._done()
            answer = changes.too_many()
            return Concluded(answer, self._event(transaction, answer, Outcome.REJECTED))
        reason = _hindrance(transaction)
        question = transaction.question = self._question(transaction, reason)
        if reason and question is None:
            return self.conclude(Failed(reason))
        content = b"" if reason else transaction.content.together()
        message = Message(self._client, transaction.envelope(), content, self._clock(), question)
        return Wanted(message, Deadline.after(_for_scanning(transaction.policy.deadline), self._monotonic))

    def conclude(self, result: Result) -> Concluded:
        """The answer for the message that ended, by its scan's result.

        Should it raise, the message is still in hand, and can be concluded in another way.
        """
        transaction = self._current()
        if concluded := self._without_result(transaction):
            self._done()
            return concluded
        treatments = transaction.treatments or {transaction.policy.treatments.default}
        mildest, overruled = decide(result, treatments)
        answer = changes.answer(
            mildest, result, transaction.forged, transaction.subject, transaction.queue_id
        )
        event = self._event(transaction, answer, mildest.outcome, result, ruled=(mildest, overruled))
        concluded = Concluded(answer, event)
        if answer.reply is not None and answer.reply.code.startswith("4"):
            _remember(transaction)
        self._done()
        return concluded

    def abort(self) -> None:
        """The message will not be completed, or the session is over."""
        self._done()

    def fail(self, step: str = "") -> None:
        """Something went wrong on our side at this step: the message in hand cannot be scanned.

        At connect and HELO there is none, and the next one is not to blame.
        """
        if step not in ("connect", "helo"):
            self._current().failed = True

    def _done(self) -> None:
        """Nothing of the message in hand is kept any more."""
        if self._transaction is not None:
            self._transaction.content.release()
            self._transaction = None

    def _begin(self) -> _Transaction:
        policy = self._policy()
        gathered = policy.limits.begin() if policy.limits is not None else None
        return _Transaction(policy, Content(policy.max_scan_size, self._room), gathered)

    def _current(self) -> _Transaction:
        """The message in hand; begun here if MAIL was lost on the way."""
        if self._transaction is None:
            self._transaction = self._begin()
        return self._transaction

    def _let_by(self, transaction: _Transaction) -> Concluded:
        """Be done with a message that nobody looks at."""
        self._done()
        why = transaction.skipped or ""
        return Concluded(Answer(), self._event(transaction, Answer(), Outcome.SKIPPED, reason=why))

    def _question(self, transaction: _Transaction, reason: Reason | None) -> Question | None:
        """What the limits by content are to be asked, if they count this message."""
        gathered = transaction.gathered
        if gathered is None or not transaction.is_counted or transaction.failed:
            return None
        sender, user, queue_id = transaction.sender, transaction.sasl_username, transaction.queue_id
        facts = gathered.facts(self._client, sender, user, queue_id, transaction.content.size)
        asking = transaction.policy.limits
        if asking is not None and asking.deferred.take(facts):
            transaction.charged_before = facts
            return None
        return Question(facts, Failed(reason) if reason else None)

    def _without_result(self, transaction: _Transaction) -> Concluded | None:
        """The answer for a message that a limit refuses, or that was only counted; None for any other."""
        said = transaction.question.outcome if transaction.question is not None else None
        if said is not None and said.refusal is not None:
            answer = Answer(reply_to(said.refusal))
            return Concluded(answer, self._event(transaction, answer, Outcome.LIMITED))
        return self._let_by(transaction) if transaction.skipped else None

    def _passed_over(self, transaction: _Transaction) -> str:
        """Why this message is not looked at; "" when it is."""
        policy = transaction.policy
        if "authenticated" in policy.skip and transaction.sasl_username:
            return "authenticated"
        if "mynetworks" in policy.skip and _is_in(self._client.address, policy.mynetworks):
            return "mynetworks"
        # Whoever could add one allowed recipient would get any message to the others past the scanner.
        everyone = 0 < transaction.allowed == transaction.recipient_count
        return transaction.rule if everyone else ""

    def _allows(self, transaction: _Transaction, recipient: str) -> str:
        """The entry of the access list that allows this recipient's mail, or ""."""
        allowed = transaction.policy.allowed
        if allowed is None:
            return ""
        sender, user = transaction.sender, transaction.sasl_username
        return allowed.rule(self._client, sender, user, recipient, self._clock())

    def _event(
        self,
        transaction: _Transaction,
        answer: Answer,
        outcome: Outcome,
        result: Result | None = None,
        reason: str = "",
        ruled: tuple[Ruling, Sequence[Ruling]] | None = None,
    ) -> Scanned:
        score = result if isinstance(result, Scored) else None
        said = transaction.question.outcome if transaction.question is not None else None
        refusal = said.refusal if said is not None else None
        treatment = ruled[0].treatment if ruled else None
        return Scanned(
            queue_id=transaction.queue_id,
            client=self._client.address or self._client.name,
            sender=transaction.sender,
            recipients=transaction.recipient_count,
            outcome=outcome.value,
            engine=result.engine if result else "",
            score=score.score if score else None,
            threshold=treatment.thresholds.tag_at if score and treatment else None,
            symbols=score.symbols if score else (),
            engine_action=score.action if score else "",
            engine_seconds=score.seconds if score else 0.0,
            reason=result.reason.value if isinstance(result, Failed) else reason,
            seconds=self._monotonic() - transaction.ended if transaction.ended else 0.0,
            size=transaction.content.size,
            action=str(answer.reply or answer.hold),
            policy=treatment.name if treatment else "",
            overruled=_told(ruled[1]) if ruled else "",
            limit=refusal.limit.name if refusal is not None else "",
            key=refusal.key if refusal is not None else "",
            used=refusal.figure if refusal is not None else "",
            observed=said.observed if said is not None else (),
        )


def _for_scanning(deadline: float) -> float:
    """Of the seconds until the answer must be there, those in which engines may be asked."""
    return deadline - min(_RESERVE, deadline / 20)


def _remember(transaction: _Transaction) -> None:
    """Let a message that is deferred not be charged again, if it was."""
    asking, question, facts = transaction.policy.limits, transaction.question, transaction.charged_before
    if question is not None and question.outcome is not None:
        facts = question.facts
    if asking is not None and facts is not None:
        asking.deferred.put(facts)


def _told(overruled: Sequence[Ruling]) -> str:
    """The policies that would have done more, and what."""
    told = [f"{each.treatment.name}:{each.action}" for each in overruled[:_OVERRULED_TOLD]]
    if len(overruled) > _OVERRULED_TOLD:
        told.append(f"and {len(overruled) - _OVERRULED_TOLD} more")
    return " ".join(told)


def _hindrance(transaction: _Transaction) -> Reason | None:
    """Why it cannot be scanned; for one that is only to be counted it is never told."""
    if transaction.failed or transaction.skipped:
        return Reason.INTERNAL
    if transaction.content.too_large:
        return Reason.TOO_LARGE
    if transaction.content.no_room:
        return Reason.NO_ROOM
    return None if transaction.policy.has_engine else Reason.NO_ENGINE


def _path(raw: bytes) -> str:
    """An address without its angle brackets."""
    return text_of(raw[1:-1] if raw.startswith(b"<") and raw.endswith(b">") else raw)


def _is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)
