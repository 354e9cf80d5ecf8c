"""What is a name of a relay domain, and a line of a domains file; no I/O."""

import re

from mxweir.address import fold_domain
from mxweir.domains.record import Record

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NEXT_HOP = re.compile(r"[!-~]{1,255}")


def parse_line(line: str, origin: int) -> Record | None:
    """Read a line of a domains file: `example.org`, `.example.org` for all below too, a next hop behind it.

    None for an empty line and a comment; ValueError says what is wrong.
    """
    words = line.split("#", 1)[0].split()
    if not words:
        return None
    if len(words) > 2:
        raise ValueError("more than a domain and a next hop")
    include_subdomains = words[0].startswith(".")
    domain = valid_domain(words[0][1:] if include_subdomains else words[0])
    next_hop = words[1] if len(words) > 1 else ""
    if next_hop and _NEXT_HOP.fullmatch(next_hop) is None:
        raise ValueError("the next hop is not printable ASCII of at most 255 characters")
    return Record(domain, next_hop, include_subdomains, origin)


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
