"""What is known of a domain, and its stored form; no I/O.

The first byte holds the flags, so that most answers look at nothing else. By
them a form tells itself from the other: there is one for what is given on this
host, where two origins may speak of the same domain, and one for what
PostgreSQL says, which alone has tenants and domains that are switched off.

    given here      flags  hop of the file NUL  hop of the commands NUL  domain
    PostgreSQL      flags  hop NUL  tenant NUL  domain

    bit 0 the file    bit 1 the commands    bit 4 PostgreSQL
    bit 2 and bit 3   their subdomains      bit 5 its subdomains    bit 6 switched off
"""

from typing import NamedTuple

FROM_FILE = 1
"""Origin: the domains file."""

FROM_COMMAND = 2
"""Origin: `mxweir domains import` and `add`."""

FROM_POSTGRES = 16
"""Origin: the table in PostgreSQL. Its records stand apart from those of the other origins."""

ALL_ORIGINS = FROM_FILE | FROM_COMMAND | FROM_POSTGRES

_HERE = (FROM_FILE, FROM_COMMAND)
_SHIFT = 2
_WIDE = 32
DISABLED = 64
"""The bit of a stored form whose domain is switched off in PostgreSQL."""

INCLUDES_SUBDOMAINS = (FROM_FILE | FROM_COMMAND) << _SHIFT | _WIDE
"""The bits of a stored form that stand for all below the domain too."""


class Record(NamedTuple):
    """What is said of a domain: its name, its next hop (transport(5) syntax, or ""), who says so.

    One that is not `enabled` is kept and not ours. Records of this host's
    origins keep apart what each says, so that none takes away what another
    brought: `said` and `unsaid` change one origin's part.
    """

    domain: str
    next_hop: str = ""
    include_subdomains: bool = False
    origins: int = FROM_COMMAND
    enabled: bool = True
    tenant: str = ""

    def encode(self) -> bytes:
        """As stored; a record of several origins of this host, as if each of them says so."""
        if self.origins == FROM_POSTGRES:
            flags = FROM_POSTGRES | _WIDE * self.include_subdomains | DISABLED * (not self.enabled)
            return f"{chr(flags)}{self.next_hop}\0{self.tenant}\0{self.domain}".encode()
        flags = self.origins | (self.origins << _SHIFT if self.include_subdomains else 0)
        of_file, of_commands = (self.next_hop if self.origins & origin else "" for origin in _HERE)
        return f"{chr(flags)}{of_file}\0{of_commands}\0{self.domain}".encode()

    @classmethod
    def decode(cls, raw: bytes, origins: int = ALL_ORIGINS) -> "Record":
        """What these origins together say in the stored form.

        Subdomains are included if one of them says so; the command's next hop goes before the file's.
        """
        flags = raw[0]
        origins &= flags
        if flags & FROM_POSTGRES:
            hop, tenant, domain = raw[1:].decode().split("\0")
            return cls(domain, hop, bool(flags & _WIDE), origins, not flags & DISABLED, tenant)
        *hops, domain = raw[1:].decode().split("\0")
        said = [hop for origin, hop in zip(_HERE, hops, strict=True) if hop and origin & origins]
        return cls(domain, said[-1] if said else "", bool(flags >> _SHIFT & origins), origins)

    def line(self) -> str:
        """As a domains file has it."""
        wide = "." if self.include_subdomains else ""
        return f"{wide}{self.domain}{' ' + self.next_hop if self.next_hop else ''}"


def said(raw: bytes | None, record: Record) -> bytes:
    """The stored form after the record's one origin of this host has said this, in place of what it said."""
    if raw is None or raw[0] & ALL_ORIGINS == record.origins:
        return record.encode()
    return _with_part(raw, record.encode(), record.origins)


def unsaid(raw: bytes, origin: int) -> bytes | None:
    """The stored form without what this origin of this host said; None if no other one says anything."""
    return _with_part(raw, _NOTHING, origin) if raw[0] & ALL_ORIGINS & ~origin else None


def _with_part(raw: bytes, new: bytes, origin: int) -> bytes:
    flags, part = origin | origin << _SHIFT, _HERE.index(origin)
    fields = raw[1:].split(b"\0")
    fields[part] = new[1:].split(b"\0")[part]
    return bytes([raw[0] & ~flags | new[0] & flags]) + b"\0".join(fields)


_NOTHING = Record("", origins=0).encode()
