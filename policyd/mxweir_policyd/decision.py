"""What Postfix is told, and why.

Replies are lines that a postmaster at the other end may read: an SMTP code, an
enhanced status code (RFC 3463) and a reason to act on. They hold no text of the
client's but a domain name that was checked for its form. A pass is `DUNNO` and
never `OK`: `OK` would skip the restrictions that stand behind this check.
"""

import re

from mxweir.access import Entry
from mxweir.events import PASS, Decision, Observed
from mxweir.ratelimit.limits import Outcome, Refusal
from mxweir.ratelimit.reply import reply_to

_SAFE_DOMAIN = re.compile(r"[a-z0-9_.-]{1,253}")

UNCONFIRMED = "unconfirmed"
"""The verdict of a decision that is none yet; nobody but the session sees it."""


def blocked(entry: Entry) -> Decision:
    """The access list has an entry against it."""
    reason = entry.reason or "blocked by the operator of this host"
    return Decision("reject", f"554 5.7.1 Access denied: {reason}", "access", entry.rule, entry.value)


def relay_denied(domain: str) -> Decision:
    """The recipient's domain is not ours, and that is certain."""
    named = f"{domain}: " if _SAFE_DOMAIN.fullmatch(domain) else ""
    return Decision("reject", f"550 5.7.1 {named}relay access denied", "relay", "unknown domain", domain)


def relay_unknown(domain: str) -> Decision:
    """Whether the recipient's domain is ours cannot be told now: the sender shall try again."""
    reply = "450 4.3.0 Relay domains cannot be looked up now; please try again"
    return Decision("defer", reply, "relay", "no answer", domain)


def unconfirmed(domain: str) -> Decision:
    """There is no decision yet: PostgreSQL has to be asked about this domain."""
    return Decision(UNCONFIRMED, "", "relay", "unconfirmed", domain)


def by_limits(outcome: Outcome) -> Decision:
    """What the limits say is the answer."""
    if outcome.refusal:
        return limited(outcome.refusal, outcome.observed)
    return PASS._replace(observed=outcome.observed) if outcome.observed else PASS


def limited(refusal: Refusal, observed: tuple[Observed, ...]) -> Decision:
    """A rate limit has no room."""
    limit = refusal.limit
    verdict = "reject" if limit.rule.refuse == "reject" else "defer"
    reply = str(reply_to(refusal))
    return Decision(verdict, reply, "limits", limit.name, refusal.key, refusal.figure, observed)
