"""Split mail addresses and fold them to what stays the same.

A stranger who wants to escape a counter varies whatever is free to vary: the
case, an address extension, a subdomain per message, a bounce tag. A limit
counts what is left when all that is taken away:

    Bob+news@Example.ORG           bob@example.org           extension, case
    prvs=0123abcdef=bob@b.example  bob@b.example             BATV
    SRS0=x1=T9=a.example=bob@f.org srs0=a.example=bob@f.org  SRS hash and day
    news-bob=b.example@lists.org   news@lists.org            VERP
    bounce-8837462-77@esp.example  bounce-#-#@esp.example    VERP, numbered
    u.a.b.c.d.spam.example         spam.example              registrable domain

Everything here is pure and works on text that Postfix has already unquoted.
"""

import contextlib
import hashlib
import ipaddress
import re
from functools import cache, lru_cache

import idna
from publicsuffixlist import PublicSuffixList

NULL_SENDER = "<>"
"""The null sender as a key of its own (RFC 5321 §4.5.5)."""

_LARGEST = 255
"""Bytes in a key before it is hashed; an address has at most 254 (RFC 5321 §4.5.3.1.3, less the brackets)."""

_LONGEST_LOCAL = 320
"""Characters in a local part that is looked into; a legal one has 64, of which tags may have made more."""

_LONGEST_DOMAIN = 255
"""Characters in a domain (RFC 5321 §4.5.3.1.2); what is longer is neither encoded nor remembered."""

_DOTS = ".\u3002\uff0e\uff61"
"""What separates labels (RFC 3490 §3.1)."""

_DOT = re.compile(f"[{_DOTS}]")

_BATV = re.compile(r"(?:prvs|btv1|msprvs1)=+[^=]*=+(?P<local>.+)", re.DOTALL)
_BATV_SWAPPED = re.compile(r"prvs=(?P<local>[^=]+)=[0-9a-f]{10}")
# The hash and the day have no dot and a domain has one. So what is folded already is told from what is not.
_SRS0 = re.compile(r"srs0[=+-](?:[^=.]*=[^=.]*=)?(?P<domain>[^=]*\.[^=]*)=(?P<local>.+)", re.DOTALL)
_SRS1 = re.compile(
    r"srs1[=+-](?:[^=.]*=)?(?P<via>[^=]*\.[^=]*)=(?:=[^=.]*=[^=.]*=)?"
    r"(?P<domain>[^=]*\.[^=]*)=(?P<local>.+)",
    re.DOTALL,
)
_VERP = re.compile(r"(?:(?P<list>[^=+]+)\+|(?P<local>[^=-]+)-)[^=]*=.*", re.DOTALL)
_WORD = re.compile(r"[^-_=]+")
_SERIAL = re.compile(r"\d{5,}|(?=[a-f]*\d)[0-9a-f]{8,}")
_BESIDE_SERIAL = re.compile(r"\d+|[0-9a-f]{4,}")


def text_of(raw: bytes) -> str:
    r"""An attribute's text; bytes that are not UTF-8 are written as `\xff`: keys are always valid text."""
    return raw.decode("utf-8", "backslashreplace")


def split(address: str) -> tuple[str, str]:
    """Local part and domain as written; the domain is empty where there is none.

    An `@` with no domain behind it counts for nothing: nobody gets a new key by adding some.
    """
    # No regular expression: one that looks for an end tries again at each of two thousand @ (20 ms).
    end = address.find("@", len(address.rstrip("@" + _DOTS)))
    local, at, domain = (address if end < 0 else address[:end]).rpartition("@")
    return (local, domain) if at else (domain, "")


def fold_domain(domain: str) -> str:
    """Lower-case A-labels without the closing dot (IDNA 2008 with the mapping of UTS 46).

    A label that is not valid stays as it is in lower case: the name is still a
    key, and may lie below a valid one.
    """
    return _fold_domain(domain) if len(domain) <= _LONGEST_DOMAIN else bounded(domain.lower().rstrip("."))


@lru_cache(maxsize=8192)
def _fold_domain(domain: str) -> str:
    if not domain.isascii():
        domain = ".".join([_a_label(label) for label in _DOT.split(domain)])
    return bounded(domain.lower().rstrip("."))


@lru_cache(maxsize=8192)
def registrable_domain(domain: str) -> str:
    """The organizational domain of RFC 7489 §3.2, by the Public Suffix List; takes a folded domain.

    A public suffix itself, an address literal and a name without dots are
    returned unchanged.
    """
    if domain.startswith("["):
        return domain
    return _suffixes().privatesuffix(domain) or domain


def fold_sender(address: str) -> str:
    """An envelope sender without case, extension, BATV, SRS and VERP parts."""
    if not address or address == NULL_SENDER:
        return NULL_SENDER
    local, domain = split(address)
    local = local.lower()
    # No legal address is longer, and what is nested in a longer one is not worth the time.
    return _join(local if len(local) > _LONGEST_LOCAL else _fold_tags(local), domain)


def fold_recipient(address: str, delimiter: str) -> str:
    """An envelope recipient without case and extension: the mailbox.

    `delimiter` is Postfix's recipient_delimiter, each of its characters counting.
    """
    local, domain = split(address)
    local = local.lower()
    ends = [end for end in (local.find(sign, 1) for sign in delimiter) if end > 0]
    return _join(local[: min(ends)] if ends else local, domain)


def fold_client(address: str, ipv4_prefix: int, ipv6_prefix: int) -> tuple[str, str]:
    """A client's address in canonical form, and its network: IPv4 /24 and IPv6 /64 unless set otherwise.

    An IPv4-mapped IPv6 address is the IPv4 one. What is no address (Postfix
    says "unknown" for some) is its own network.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return (text := bounded(address.lower())), text
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    prefix = ipv4_prefix if ip.version == 4 else ipv6_prefix
    network = ipaddress.ip_network((ip, prefix), strict=False)
    return str(ip), str(network)


def bounded(key: str) -> str:
    """A key of more than 255 bytes becomes its hash: what a stranger sends never makes a large key.

    The bytes are those that Python holds (PEP 393): 255 characters of ASCII, 127
    with others among them, 63 with such as emoji.
    """
    width = 1 if key.isascii() else 2 if max(key) <= "\uffff" else 4
    return key if len(key) * width <= _LARGEST else hashed(key)


def hashed(key: str) -> str:
    """What stands for a key that is too large; the same for the same key only."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _join(local: str, domain: str) -> str:
    """An address as a key; never empty, because that would be no key at all."""
    return bounded(f"{local}@{fold_domain(domain)}" if domain else local or "@")


def _a_label(label: str) -> str:
    for spelling in () if label.isascii() else (label, label.lower()):
        with contextlib.suppress(idna.IDNAError, UnicodeError):
            return idna.encode(spelling, uts46=True).decode("ascii")
    return label


def _fold_tags(local: str) -> str:
    """Tags may stand within tags: a bounce of a forwarded list, or somebody who tries."""
    if match := _SRS0.fullmatch(local):
        return f"srs0={match['domain']}={_fold_tags(match['local'])}"
    if match := _SRS1.fullmatch(local):
        return f"srs1={match['via']}={match['domain']}={_fold_tags(match['local'])}"
    if match := _BATV_SWAPPED.fullmatch(local) or _BATV.fullmatch(local):
        return _fold_tags(match["local"])
    if match := _VERP.fullmatch(local):
        local = match["list"] or match["local"]
    plus = local.find("+", 1)
    return _fold_serials(local[:plus] if plus > 0 else local)


def _fold_serials(local: str) -> str:
    """`bounce-8837462-77` → `bounce-#-#`; an address that is nothing but one number is somebody's."""
    words = _WORD.findall(local)
    if len(words) < 2 or not any(_SERIAL.fullmatch(word) for word in words):
        return local
    return _WORD.sub(lambda word: "#" if _BESIDE_SERIAL.fullmatch(word[0]) else word[0], local)


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
