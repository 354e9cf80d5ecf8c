"""Names, records and how they match; no I/O.

The table maps a fixed-size hash of the A-label, lower-case name to a record, so
that a lookup costs the same whatever the name's length. A record may stand for
all that is below its name too; then a bounded number of parents is looked up.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from mxweir.address import fold_domain

PARENTS = 8
"""Labels that are taken off when parents are looked up; deeper names are not ours by inheritance."""

FROM_FILE = 1
"""Origin: the domains file."""

FROM_COMMAND = 2
"""Origin: `mxweir domains import` and `add`."""

_ORIGINS = (FROM_FILE, FROM_COMMAND)
_ALL = FROM_FILE | FROM_COMMAND
_SHIFT = 2
"""A record's flags have a bit for each origin that knows the domain, and above one for its subdomains."""
_SUBDOMAINS = _ALL << _SHIFT
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NEXT_HOP = re.compile(r"[!-~]{1,255}")


class Record(NamedTuple):
    """What is said of a domain: its name, its next hop (transport(5) syntax, or ""), who says so.

    A table's records keep apart what each origin says, so that none takes away
    what another brought: `said` and `unsaid` change one origin's part.
    """

    domain: str
    next_hop: str = ""
    subdomains: bool = False
    origins: int = FROM_COMMAND

    def encode(self) -> bytes:
        """As stored, if each of its origins says so: flags, a next hop for each origin there is, name."""
        flags = self.origins | (self.origins << _SHIFT if self.subdomains else 0)
        hops = "".join(f"{self.next_hop if self.origins & origin else ''}\0" for origin in _ORIGINS)
        return bytes([flags]) + f"{hops}{self.domain}".encode()

    @classmethod
    def decode(cls, raw: bytes, origins: int = _ALL) -> "Record":
        """What these origins together say in the stored form.

        Subdomains are included if one of them says so; the command's next hop goes before the file's.
        """
        origins &= raw[0]
        *hops, domain = raw[1:].decode().split("\0")
        said = [hop for origin, hop in zip(_ORIGINS, hops, strict=True) if hop and origin & origins]
        return cls(domain, said[-1] if said else "", bool(raw[0] >> _SHIFT & origins), origins)

    def line(self) -> str:
        """As a domains file has it."""
        return f"{'.' if self.subdomains else ''}{self.domain}{' ' + self.next_hop if self.next_hop else ''}"


def said(raw: bytes | None, record: Record) -> bytes:
    """The stored form after the record's one origin has said this, in place of what it said before."""
    if raw is None or raw[0] & _ALL == record.origins:
        return record.encode()
    return _with_part(raw, record.encode(), record.origins)


def unsaid(raw: bytes, origin: int) -> bytes | None:
    """The stored form without what this origin said; None if no other one says anything."""
    return _with_part(raw, _NOTHING, origin) if raw[0] & _ALL & ~origin else None


def _with_part(raw: bytes, new: bytes, origin: int) -> bytes:
    flags, part = origin | origin << _SHIFT, _ORIGINS.index(origin)
    fields = raw[1:].split(b"\0")
    fields[part] = new[1:].split(b"\0")[part]
    return bytes([raw[0] & ~flags | new[0] & flags]) + b"\0".join(fields)


_NOTHING = Record("", origins=0).encode()


class State(Enum):
    """What can be said about a domain."""

    OURS = "ours"
    NOT_OURS = "not ours"
    OFF = "no relay domains are known"
    """Nothing was ever given to tell by: the check is off, and Postfix's own relay_domains decides."""
    FAILED = "the table cannot be trusted now"
    """There is a table and it gave no answer that can be trusted."""


class Match(NamedTuple):
    """The answer to "is it ours?", with the stored record that says so: most who ask never look into it."""

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


NOT_OURS = Match(State.NOT_OURS)


@lru_cache(maxsize=8192)
def digest(domain: str) -> bytes:
    """The key of a folded domain: SHA-256, 32 bytes."""
    return hashlib.sha256(domain.encode("utf-8", "surrogatepass")).digest()


def find(domain: str, get: Callable[[bytes], bytes | None]) -> Match:
    """Look a folded domain up, then its parents for a record that includes subdomains."""
    raw = get(digest(domain))
    if raw is not None:
        return Match(State.OURS, raw)
    for parent in _parents(domain):
        raw = get(digest(parent))
        if raw is not None and raw[0] & _SUBDOMAINS:
            return Match(State.OURS, raw)
    return NOT_OURS


def parse_line(line: str, origin: int) -> Record | None:
    """Read a line of a domains file: `example.org`, `.example.org` for all below too, a next hop behind it.

    None for an empty line and a comment; ValueError says what is wrong.
    """
    words = line.split("#", 1)[0].split()
    if not words:
        return None
    if len(words) > 2:
        raise ValueError("more than a domain and a next hop")
    subdomains = words[0].startswith(".")
    domain = valid_domain(words[0][1:] if subdomains else words[0])
    next_hop = words[1] if len(words) > 1 else ""
    if next_hop and _NEXT_HOP.fullmatch(next_hop) is None:
        raise ValueError("the next hop is not printable ASCII of at most 255 characters")
    return Record(domain, next_hop, subdomains, origin)


def valid_domain(text: str) -> str:
    """Fold a name and check that mail can be addressed to it; ValueError says why not."""
    domain = fold_domain(text)
    shown = text if len(text) <= 80 else f"{text[:80]}…"
    if not domain.isascii():
        raise ValueError(f"{shown!r} is no international domain name (IDNA 2008)")
    if max(len(domain), len(text.rstrip("."))) > 253:
        raise ValueError(f"{shown!r} is longer than 253 characters")
    labels = domain.split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{shown!r} is no domain name")
    if len(labels) < 2:
        raise ValueError(f"{shown!r} has no dot; a relay domain has at least two labels")
    if labels[-1].isdigit():
        raise ValueError(f"{shown!r} is an address, not a domain")
    return domain


def _parents(domain: str) -> Iterator[str]:
    for _ in range(PARENTS):
        _, dot, domain = domain.partition(".")
        if not dot:
            return
        yield domain
