"""The checks, in their order: access, relay, limits.

    request → Facts → access → relay → limits → Decision

The first that refuses ends it. An entry that allows spares the limits, never
the relay check: no list of ours makes a relay. Postfix's policy_context says
which checks run, so that one socket can serve several places in main.cf:

    relay      the relay check                smtpd_relay_restrictions
    limits     access, limits by recipient    smtpd_recipient_restrictions
    message    limits by message and byte     smtpd_end_of_data_restrictions
    (none)     all of them

Pure: the time and the domain table are handed in, so `mxweir explain` runs this
very code.
"""

from collections.abc import Callable, Set
from typing import NamedTuple, Protocol

from mxweir.access import AccessList
from mxweir.domains.match import Match, State
from mxweir.events import PASS, Decision
from mxweir.facts import Facts, Folder
from mxweir.ratelimit.limits import Limits, Preview
from mxweir.trail import Step
from mxweir_policyd.decision import blocked, by_limits, relay_denied, relay_unknown, unconfirmed
from mxweir_policyd.express import Express, write_express
from mxweir_policyd.protocol import Attributes

CONTEXTS = (b"", b"relay", b"limits", b"message")

_OURS = State.OURS
_REFUSALS = {
    State.NOT_OURS: relay_denied,
    State.FAILED: relay_unknown,
    # Only in an explanation: whoever decides has asked.
    State.UNCONFIRMED: relay_unknown,
}


class Domains(Protocol):
    """The table of relay domains; takes folded domains."""

    @property
    def ours(self) -> Set[str]:
        """Some that are, as of at most a second ago: `state` need not be asked. Always this same set."""

    def state(self, domain: str) -> State:
        """Is it ours? An answer may be a second old."""

    def find(self, domain: str) -> Match:
        """Is it ours, and by which record?"""


class Explanation(NamedTuple):
    """A decision with every step that led to it."""

    decision: Decision
    trail: list[Step]


class Pipeline:
    """The checks of one configuration."""

    def __init__(self, folder: Folder, access: AccessList, domains: Domains, limits: Limits) -> None:
        self.folder = folder
        self._access = access
        self.domains = domains
        self.limits = limits
        self.express: Express
        self.write_lane()

    def adopt(self, former: "Pipeline", now: float) -> None:
        """Take over what the limits of a former configuration remember, and leave those without it."""
        self.limits.adopt(former.limits, now)
        self.write_lane()

    def tick(self, now: float) -> None:
        """Forget what is over; call it every second or so."""
        self.limits.tick(now)

    def write_lane(self) -> None:
        """Write the express lane anew: the limits have other tables, or there are access entries now."""
        self.express = write_express(self.folder, self._access, self.domains, self.limits)

    def facts(self, request: Attributes) -> Facts:
        """Everything about a request, derived once."""
        state, client, helo, sender, recipient, queue_id, instance, size, user, context = request
        folder = self.folder
        context = context if context in CONTEXTS else b""
        parts = folder.client[client], folder.sender[sender], folder.recipient[recipient], helo, user
        return tuple.__new__(Facts, (*parts, state, context, instance, queue_id, size))

    def decide(self, facts: Facts, now: float, confirmed: Match | None = None) -> Decision:
        """Answer a question, and charge the limits if it passes; `now` in seconds.

        The decision may be that PostgreSQL has to be asked first (`decision.unconfirmed`): then nothing was
        charged, and the question is to be decided again with what that says of the domain.
        """
        return self.screen(facts, now, confirmed) or by_limits(self.limits.decide(facts, now))

    def screen(self, facts: Facts, now: float, confirmed: Match | None = None) -> Decision | None:
        """What the checks before the limits say; None if the limits have the last word."""
        context = facts.context
        entry = self._access.find(facts, now) if context in (b"", b"limits") else None
        if entry is not None and not entry.allow:
            return blocked(entry)
        domain = facts.recipient.domain
        if domain and context in (b"", b"relay"):
            state = self.domains.state(domain)
            if state is not _OURS and not _is_literal(domain):
                if state is State.UNCONFIRMED:
                    if confirmed is None:
                        return unconfirmed(domain)
                    state = confirmed.state
                if state in _REFUSALS:
                    return _REFUSALS[state](domain)
        return PASS if entry is not None else None

    def unconfirmed(self, facts: Facts) -> str:
        """The folded domain that PostgreSQL has to be asked about before this can be decided, or ""."""
        domain = facts.recipient.domain
        if facts.context not in (b"", b"relay") or not domain or _is_literal(domain):
            return ""
        return domain if self.domains.find(domain).state is State.UNCONFIRMED else ""

    def preview_limits(self, facts: Facts, now: float, then: Callable[[Preview], None]) -> None:
        """Have `then` called with what the limits would say; charges nothing."""
        then(self.limits.preview(facts, now))

    def explain(
        self, facts: Facts, now: float, confirmed: Match | None = None, limits: Preview | None = None
    ) -> Explanation:
        """What `decide` would answer, with the trail; charges nothing.

        `limits` is what the limits would say, if not those of this process.
        """
        decision, trail = self._preview_access(facts, now)
        allowed = bool(trail) and trail[0].outcome == "allow"
        relay = self._preview_relay(confirmed, facts)
        outcome, steps = limits or self.limits.preview(facts, now)
        for reached, (found, more) in ((True, relay), (not allowed, (by_limits(outcome), steps))):
            if decision is PASS and reached:
                decision, trail = found, trail + more
            else:
                trail += [step._replace(outcome="not reached") for step in more]
        return Explanation(decision, trail)

    def _preview_access(self, facts: Facts, now: float) -> tuple[Decision, list[Step]]:
        if facts.context not in (b"", b"limits"):
            return PASS, []
        entry = self._access.find(facts, now)
        if entry is None:
            return PASS, [Step("access", "", "", "pass", note="no entry matches")]
        step = Step("access", entry.rule, entry.value, "allow" if entry.allow else "block", note=entry.reason)
        return (PASS if entry.allow else blocked(entry)), [step]

    def _preview_relay(self, confirmed: Match | None, facts: Facts) -> tuple[Decision, list[Step]]:
        domain = facts.recipient.domain
        if facts.context not in (b"", b"relay") or not domain:
            return PASS, []
        if _is_literal(domain):
            return PASS, [Step("relay", "", domain, "pass", note="Postfix knows its own addresses")]
        match, by = self.domains.find(domain), ""
        if match.state is State.UNCONFIRMED and confirmed is not None:
            match, by = confirmed, "PostgreSQL was asked: "
        if match.state in _REFUSALS:
            refused = _REFUSALS[match.state](domain)
            return refused, [Step("relay", refused.rule, domain, "refuse", note=by + match.state.value)]
        inherited = match.by and match.by != domain
        note = by + (f"below {match.by}, which includes its subdomains" if inherited else match.state.value)
        return PASS, [Step("relay", "", domain, "pass", note=note)]


def _is_literal(domain: str) -> bool:
    """`postmaster@[192.0.2.25]` (RFC 5321 §4.1.3): whether it is one of this host's, Postfix knows."""
    return domain.startswith("[")
