"""How a domain matches records; no I/O.

A table maps a fixed-size hash of the A-label, lower-case name to a record, so
that a lookup costs the same whatever the name's length. A record may stand for
all that is below its name too; then a bounded number of parents is looked up.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from hashlib import sha256
from typing import NamedTuple

from mxweir.domains.record import DISABLED, INCLUDES_SUBDOMAINS, Record

PARENTS = 8
"""Labels that are taken off when parents are looked up; deeper names are not ours by inheritance."""


class State(Enum):
    """What can be said about a domain."""

    OURS = "ours"
    NOT_OURS = "not ours"
    OFF = "no relay domains are known"
    """Nothing was ever given to tell by: the check is off, and Postfix's own relay_domains decides."""
    FAILED = "the table cannot be trusted now"
    """There is a table and it gave no answer that can be trusted."""
    UNCONFIRMED = "not in the table of this host, and PostgreSQL was not asked"
    """This host's table lacks it; PostgreSQL is the truth and may have it."""


class Match(NamedTuple):
    """The answer to "is it ours?", with the stored record that says so: most who ask never look into it.

    A record beside a state that is not OURS is that of a domain which is switched off.
    """

    state: State
    raw: bytes = b""

    @property
    def by(self) -> str:
        """The domain whose record matched: the one asked for, or a parent."""
        return Record.decode(self.raw).domain if self.raw else ""

    @property
    def next_hop(self) -> str:
        """Where its mail goes, in transport(5) syntax, or ""."""
        return Record.decode(self.raw).next_hop if self.raw else ""

    @property
    def tenant(self) -> str:
        """Whose domain it is, as PostgreSQL says; or ""."""
        return Record.decode(self.raw).tenant if self.raw else ""


NOT_OURS = Match(State.NOT_OURS)


def digest(domain: str) -> bytes:
    """The key of a folded domain: SHA-256, 32 bytes. Not remembered: that would cost as much as it saves."""
    return sha256(domain.encode("utf-8", "surrogatepass")).digest()


def find(domain: str, get: Callable[[bytes], bytes | None]) -> Match:
    """Look a folded domain up, then its parents for a record that includes subdomains.

    The nearest record that speaks for the domain decides, also when it is switched off.
    """
    raw = get(digest(domain))
    if raw is not None:
        return _match(raw)
    for parent in parents(domain):
        raw = get(digest(parent))
        if raw is not None and raw[0] & INCLUDES_SUBDOMAINS:
            return _match(raw)
    return NOT_OURS


def _match(raw: bytes) -> Match:
    return Match(State.NOT_OURS if raw[0] & DISABLED else State.OURS, raw)


def exact(match: Match, domain: str) -> bool:
    """Whether the record is that of the folded domain itself, and not of one above it."""
    return match.raw.endswith(b"\0" + domain.encode("utf-8", "surrogatepass"))


def nearest(first: Match, second: Match) -> Match:
    """Of what two tables say of a domain, that of the nearest record; the first where both are as near."""
    return second if len(second.by) > len(first.by) else first


def parents(domain: str) -> Iterator[str]:
    """The names above a folded domain whose records may include it, nearest first: of two labels or more."""
    for _ in range(PARENTS):
        domain = domain.partition(".")[2]
        if "." not in domain:
            return
        yield domain
