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

from collections.abc import Callable
from typing import NamedTuple

from mxweir import address
from mxweir.access import AccessList
from mxweir.facts import Facts, Folder
from mxweir.ratelimit.limits import Limits
from mxweir.trail import Step
from mxweir_policyd.decision import PASS, Decision, blocked, limited, relay_denied, relay_unknown
from mxweir_policyd.protocol import Request
from mxweir_policyd.relaydomains.match import Match, State

CONTEXTS = ("", "relay", "limits", "message")

FindDomain = Callable[[str], Match]
"""Is the folded domain ours?"""


class Explanation(NamedTuple):
    """A decision with every step that led to it."""

    decision: Decision
    trail: list[Step]


class Pipeline:
    """The checks of one configuration."""

    def __init__(self, folder: Folder, access: AccessList, find_domain: FindDomain, limits: Limits) -> None:
        self._folder = folder
        self._access = access
        self.find_domain = find_domain
        self.limits = limits

    def facts(self, request: Request) -> Facts:
        """Everything about a request, derived once."""
        folder = self._folder
        client, network = folder.client(request.client_address)
        sender_given, sender, sender_domain, sender_org = folder.sender(request.sender)
        recipient_given, recipient, recipient_domain = folder.recipient(request.recipient)
        context = request.policy_context.decode("latin-1")
        return Facts(
            client,
            network,
            folder.word(request.helo_name),
            sender,
            sender_domain,
            sender_org,
            recipient,
            recipient_domain,
            folder.word(request.sasl_username),
            request.protocol_state.decode("latin-1"),
            context if context in CONTEXTS else "",
            address.text_of(request.instance),
            address.text_of(request.queue_id),
            sender_given,
            recipient_given,
            _number(request.size),
            _number(request.recipient_count),
        )

    def decide(self, facts: Facts, now: float) -> Decision:
        """Answer a question, and charge the limits if it passes; `now` in seconds."""
        context = facts.context
        spared = False
        if context in ("", "limits"):
            entry = self._access.find(facts, now)
            if entry is not None:
                if not entry.allow:
                    return blocked(entry)
                spared = True
        if context in ("", "relay") and facts.recipient_domain:
            state = self.find_domain(facts.recipient_domain).state
            if state is State.NOT_OURS:
                return relay_denied(facts.recipient_domain)
            if state is State.FAILED:
                return relay_unknown(facts.recipient_domain)
        if spared:
            return PASS
        outcome = self.limits.decide(facts, now)
        if outcome.refusal:
            return limited(outcome.refusal, outcome.observed)
        return PASS._replace(observed=outcome.observed) if outcome.observed else PASS

    def explain(self, facts: Facts, now: float) -> Explanation:
        """What `decide` would answer, with the trail; charges nothing."""
        decision = PASS
        trail: list[Step] = []
        for preview in (self._preview_access, self._preview_relay, self._preview_limits):
            found, steps = preview(facts, now)
            if decision is not PASS or (
                trail and trail[0].outcome == "allow" and preview == self._preview_limits
            ):
                steps = [step._replace(outcome="not reached") for step in steps]
            else:
                decision = found
            trail += steps
        return Explanation(decision, trail)

    def _preview_access(self, facts: Facts, now: float) -> tuple[Decision, list[Step]]:
        if facts.context not in ("", "limits"):
            return PASS, []
        entry = self._access.find(facts, now)
        if entry is None:
            return PASS, [Step("access", "", "", "pass", note="no entry matches")]
        step = Step("access", entry.rule, entry.value, "allow" if entry.allow else "block", note=entry.reason)
        return (PASS if entry.allow else blocked(entry)), [step]

    def _preview_relay(self, facts: Facts, now: float) -> tuple[Decision, list[Step]]:
        domain = facts.recipient_domain
        if facts.context not in ("", "relay") or not domain:
            return PASS, []
        match = self.find_domain(domain)
        if match.state is State.NOT_OURS:
            return relay_denied(domain), [
                Step("relay", "unknown domain", domain, "refuse", note=match.state.value)
            ]
        if match.state is State.FAILED:
            return relay_unknown(domain), [
                Step("relay", "no answer", domain, "refuse", note=match.state.value)
            ]
        inherited = match.by and match.by != domain
        note = f"below {match.by}, which includes its subdomains" if inherited else match.state.value
        return PASS, [Step("relay", "", domain, "pass", note=note)]

    def _preview_limits(self, facts: Facts, now: float) -> tuple[Decision, list[Step]]:
        outcome, steps = self.limits.preview(facts, now)
        return (limited(outcome.refusal, outcome.observed) if outcome.refusal else PASS), steps


def _number(raw: bytes) -> int:
    return int(raw) if raw.isdigit() and len(raw) < 19 else 0
