"""What is a name of a relay domain, and a line of a domains file; no I/O.

One rule says it, for files, commands and configuration (`valid_domain`); the
table in PostgreSQL holds the same one for what is in the form already.

1. Labels are parted by dots; those of other scripts count too (RFC 3490 §3.1),
   and one at the end is dropped.
2. A label that is not ASCII is mapped by UTS 46 (case, width, composition) and
   becomes an A-label by IDNA 2008; if it cannot, the name is refused.
3. A label of ASCII is put in lower case. It has at most 63 letters, digits,
   hyphens and underscores, and no hyphen at its ends. One that begins with xn--
   must stand for something (RFC 3492), but not by IDNA 2008: there are domains
   of older rules, such as those with emoji, and DNS knows them by this form only.
4. There are at least two labels, the last is not a number, and neither the name
   as it was given nor its result has more than 253 characters (RFC 1035 §2.3.4,
   less the lengths of first label and root).

So a text of any size and any content is accepted or refused, and what is
accepted is found by whatever spelling of it a client uses: `fold_domain` gives
lookups the same form.
"""

import re

import idna

from mxweir.address import fold_domain
from mxweir.domains.record import Record

LONGEST = 253
"""Characters in a name."""

_NAME = re.compile(r"(?:(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.|$))+(?<!\.)")
_ODD = re.compile(r"[^a-z0-9_-]")
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
    """The one form of a name in which mail can be addressed to it; ValueError says why it is none."""
    domain = fold_domain(text)
    if max(len(domain), len(text.rstrip("."))) > LONGEST:
        raise ValueError(f"{_shown(text)} is longer than {LONGEST} characters")
    if not domain.isascii():
        raise ValueError(f"{_shown(text)} is no international domain name (IDNA 2008): {_idna_fault(domain)}")
    if _NAME.fullmatch(domain) is None or "xn--" in domain:
        for label in domain.split("."):
            if fault := _label_fault(label):
                raise ValueError(f"{_shown(text)} is no domain name: {fault}")
    last = domain.rpartition(".")[2]
    if last == domain:
        raise ValueError(f"{_shown(text)} has no dot; a relay domain has at least two labels")
    if last.isdigit():
        raise ValueError(f"{_shown(text)} is an address, not a domain")
    return domain


def in_form(record: Record) -> bool:
    """Whether name and next hop are such as `parse_line` gives; a customer's view may have any text."""
    name, hop = record.domain, record.next_hop
    return (
        "." in name
        and len(name) <= LONGEST
        and _NAME.fullmatch(name) is not None
        and (not hop or _NEXT_HOP.fullmatch(hop) is not None)
    )


def _label_fault(label: str) -> str:
    """What is wrong with a folded label of ASCII; "" if nothing is."""
    if not label:
        return "there is nothing between two dots"
    if len(label) > 63:
        return "a label has more than 63 characters"
    if (odd := _ODD.search(label)) is not None:
        return f"{odd[0]!r} is no letter, digit, - or _"
    if label[0] == "-" or label[-1] == "-":
        return f"{label!r} begins or ends with a hyphen"
    if label.startswith("xn--") and not _decodes(label[4:]):
        return f"{label!r} stands for nothing (RFC 3492)"
    return ""


def _decodes(encoded: str) -> bool:
    try:
        text = encoded.encode().decode("punycode")
    except UnicodeError:
        return False
    return not text.isascii() and text.encode("punycode", "surrogatepass").decode() == encoded


def _idna_fault(domain: str) -> str:
    """Why the first label that `fold_domain` had to leave as it is has no A-label."""
    for label in domain.split("."):
        try:
            idna.encode(label, uts46=True)
        except (idna.IDNAError, UnicodeError) as error:
            if not label.isascii():
                return str(error)[:120]
    return "it has none"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
