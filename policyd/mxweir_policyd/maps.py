"""The two tables of the map server: `relay-domains` and `transport`.

Postfix asks the first for domains, those of senders too, and the second for
whole addresses, and once for `*`: a socketmap is never asked for parts of a key
(found by experiment with 3.7), so the address is taken apart here, and parents
are looked up here.
"""

from typing import NamedTuple

from mxweir.address import fold_domain, split
from mxweir.domains.match import Match, State, parents
from mxweir.domains.record import Record
from mxweir_policyd.pipeline import Domains
from mxweir_policyd.socketmap import Lookup, format_answer

_NOT_FOUND = format_answer("NOTFOUND")

FAILED = format_answer("TEMP", "internal error")
"""The answer where there is none for a fault of ours."""


class Unconfirmed(NamedTuple):
    """There is no answer before PostgreSQL has been asked about this folded domain."""

    domain: str


def answer(lookup: Lookup, domains: Domains, confirmed: Match | None = None) -> bytes | Unconfirmed:
    """Answer one lookup. While no domain is known at all, a temporary failure and never NOTFOUND.

    Unconfirmed: look it up again with what PostgreSQL says of the domain.
    """
    if lookup.table not in ("relay-domains", "transport"):
        return format_answer("PERM", "no such table; relay-domains and transport are here")
    domain = fold_domain(split(lookup.key)[1] if "@" in lookup.key else lookup.key)
    if "." not in domain or domain.startswith("["):
        return _NOT_FOUND  # never a relay domain: those have two labels
    match = domains.find(domain)
    if match.state is State.UNCONFIRMED:
        if confirmed is None:
            return Unconfirmed(domain)
        match = confirmed
    if match.state is State.NOT_OURS:
        return _NOT_FOUND
    if match.state is not State.OURS:
        return format_answer("TEMP", match.state.value)
    if lookup.table == "relay-domains":
        return format_answer("OK", match.by)
    hop = _next_hop(match, domains)
    return format_answer("OK", hop) if hop else _NOT_FOUND


def _next_hop(match: Match, domains: Domains) -> str:
    """That of the record, or of the nearest one above it that includes its subdomains and has one.

    As transport(5) has it: there a name without a row of its own finds the row of a parent.
    """
    record = Record.decode(match.raw)
    if record.next_hop:
        return record.next_hop
    for name in parents(record.domain):
        raw = domains.find(name).raw
        above = Record.decode(raw) if raw else None
        if above and above.domain == name and above.include_subdomains and above.enabled and above.next_hop:
            return above.next_hop
    return ""
