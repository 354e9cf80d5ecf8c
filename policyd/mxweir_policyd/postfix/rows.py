"""What stands in Postfix's tables for a domain of ours; no I/O.

    relay-domains    NAME OK          transport    NAME NEXT-HOP    (where there is one)
                     .NAME OK                      .NAME NEXT-HOP   (where subdomains are included)

Postfix looks NAME up as the client wrote it, in lower case: an internationalised
name therefore stands there in both its forms. Found by experiment: `.NAME` is
looked up for what lies below in transport_maps always, and in relay_domains as
long as parent_domain_matches_subdomains does not list it; where it does, NAME
itself would stand for all below, whether it includes its subdomains or not.

A domain without a next hop of its own has that of the nearest one above it that
includes its subdomains: so transport(5) has it, and so does the map server.

A customer's view may have any text as a name or a next hop. One with a space or
a line's end would be other rows to postmap(1), of somebody else's domain: what is
not in the form of a domains file has no rows.
"""

from typing import NamedTuple

import idna

from mxweir.address import fold_domain
from mxweir.domains.match import Match, State
from mxweir.domains.names import in_form
from mxweir.domains.record import Record

RELAY, TRANSPORT = "relay-domains", "transport"


class Rows(NamedTuple):
    """Keys and values of both tables."""

    relay: dict[str, str]
    transport: dict[str, str]


def rows_of(record: Record) -> Rows:
    """The rows of one record; none where the domain is switched off, or could not stand in a domains file."""
    if not record.enabled or not in_form(record):
        return Rows({}, {})
    keys = spellings(record.domain)
    if record.include_subdomains:
        keys += [f".{name}" for name in keys]
    return Rows(dict.fromkeys(keys, "OK"), dict.fromkeys(keys, record.next_hop) if record.next_hop else {})


def wanted(domain: str, match: Match) -> Rows:
    """The rows of a folded domain by the answer to "is it ours?"; none of its own where a parent matched."""
    if match.state is not State.OURS:
        return Rows({}, {})
    record = Record.decode(match.raw)
    return rows_of(record) if record.domain == domain else Rows({}, {})


def spellings(domain: str) -> list[str]:
    """A folded domain as Postfix may be asked for it: its A-labels, and its U-labels where that is safe.

    Postfix folds case more widely than IDNA does: it would look up `straße` as
    `strasse`, and that is another's domain. Such a name stands there in A-labels only.
    """
    if "xn--" not in domain:
        return [domain]
    try:
        name = idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return [domain]
    return [domain, name] if name == name.casefold() and fold_domain(name) == domain != name else [domain]


def keys_of(domain: str) -> list[str]:
    """Every key that a folded domain can have in a table."""
    names = spellings(domain)
    return names + [f".{name}" for name in names]


def domain_of(key: str) -> str:
    """The folded domain that a key stands for."""
    return fold_domain(key.removeprefix("."))
