"""The two tables of the map server: `relay-domains` and `transport`.

Both are keyed by domain. For transport(5), Postfix also asks for whole
addresses and for `*`; those are never found.
"""

from mxweir.address import fold_domain
from mxweir.domains.match import State
from mxweir_policyd.pipeline import Domains
from mxweir_policyd.socketmap import Lookup, format_answer


def answer(lookup: Lookup, domains: Domains) -> bytes:
    """Answer one lookup. While no domain is known at all, a temporary failure and never NOTFOUND."""
    if lookup.table not in ("relay-domains", "transport"):
        return format_answer("PERM", "no such table; relay-domains and transport are here")
    if "@" in lookup.key or lookup.key == "*":
        return format_answer("NOTFOUND")
    match = domains.find(fold_domain(lookup.key))
    if match.state is State.NOT_OURS:
        return format_answer("NOTFOUND")
    if match.state is not State.OURS:
        return format_answer("TEMP", match.state.value)
    if lookup.table == "relay-domains":
        return format_answer("OK", match.by)
    return format_answer("OK", match.next_hop) if match.next_hop else format_answer("NOTFOUND")
