"""What most who ask want to know of a domain, its flags, in few places of memory; no I/O.

A B+tree of ten million hashes is searched through a dozen cache lines that are
in no cache. So beside the records stands a table of their first bytes: the
first 12 bits of a domain's SHA-256 name one of 4,096 chunks, and a chunk is a
hash table of slots with linear probing (Knuth, TAOCP vol. 3, §6.4):

    slot        10 more bytes of the SHA-256, and the flags, which are never 0
    free slot   11 × 0
    place of h  the first 32 of these bits · slots / 2³², else the next free slot behind it, round the end

A lookup reads a dozen slots from the place on, mostly once. 92 bits tell two
domains apart: with ten million in the table, somebody who looks for a name that
is taken for one of them has to hash some 2⁶⁹ names.
"""

from collections.abc import Iterator, Mapping

from mxweir.domains.record import INCLUDES_SUBDOMAINS

CHUNKS = 4096

PREFIX = bytes(4)
"""What the keys of chunks begin with, which makes them the first where they stand among hashes."""

_MEMBER = slice(2, 12)
_SLOT = 11
_FREE = bytes(_SLOT)
_WINDOW = 12 * _SLOT
_NARROW = bytes(flags for flags in range(256) if not flags & INCLUDES_SUBDOMAINS)

NOTHING = memoryview(_FREE)
"""A chunk with no domain in it."""


def number_of(key: bytes) -> int:
    """Which chunk a SHA-256 belongs to; in the order of the hashes."""
    return int.from_bytes(key[:2]) >> 4


def name_of(number: int) -> bytes:
    """The key under which a chunk is."""
    return PREFIX + number.to_bytes(2)


def look_up(chunk: memoryview, key: bytes) -> int:
    """The flags of the domain of a SHA-256 that belongs to this chunk; 0 for none."""
    member, size = key[_MEMBER], len(chunk)
    place = (int.from_bytes(key[2:6]) * (size // _SLOT) >> 32) * _SLOT
    for _ in range(size // _WINDOW + 2):  # it ends before, unless the file is damaged
        window = bytes(chunk[place : place + _WINDOW])
        at = window.find(member)
        while at > 0 and at % _SLOT:
            at = window.find(member, at + 1)
        if at >= 0:
            return window[at + _SLOT - 1]
        if _FREE in window:
            break
        place = place + _WINDOW if place + _WINDOW < size else 0
    return 0


def wide(chunk: bytes) -> int:
    """How many of its domains include their subdomains."""
    return len(chunk[_SLOT - 1 :: _SLOT].translate(None, _NARROW))


def changed(chunk: bytes, changes: Mapping[bytes, int]) -> bytes:
    """The chunk with these flags for these SHA-256, which belong to it; 0 takes one away; empty without any.

    Domains in a chunk take a half to four fifths of its slots, as long as there are more than a few.
    """
    slots = len(chunk) // _SLOT
    most = slots - chunk[_SLOT - 1 :: _SLOT].count(0) + len(changes)
    if len(changes) * 8 < slots and most * 5 <= slots * 4 and most * 2 >= slots:
        table = bytearray(chunk)
        for key, flags in changes.items():
            _change(table, key[_MEMBER], flags)
        return bytes(table)
    content = {slot[:-1]: slot for slot in _slots(chunk) if slot[-1]}
    for key, flags in changes.items():
        content[key[_MEMBER]] = key[_MEMBER] + bytes((flags,))
    return _built([slot for slot in content.values() if slot[-1]])


def _built(taken: list[bytes]) -> bytes:
    slots = len(taken) * 3 // 2 + 1
    table = [_FREE] * slots
    for slot in taken:
        at = int.from_bytes(slot[:4]) * slots >> 32
        while table[at] is not _FREE:
            at = (at + 1) % slots
        table[at] = slot
    return b"".join(table) if taken else b""


def _change(table: bytearray, member: bytes, flags: int) -> None:
    at = _place(table, member)
    while table[at + _SLOT - 1] and table[at : at + _SLOT - 1] != member:
        at = (at + _SLOT) % len(table)
    if flags:
        table[at : at + _SLOT] = member + bytes((flags,))
    elif table[at + _SLOT - 1]:
        _free(table, at)


def _free(table: bytearray, hole: int) -> None:
    """Free a slot; what stands behind it and would not be found any more moves up (Knuth's algorithm R)."""
    size = len(table)
    at = (hole + _SLOT) % size
    while table[at + _SLOT - 1]:
        if (at - _place(table, table[at : at + 4])) % size >= (at - hole) % size:
            table[hole : hole + _SLOT] = table[at : at + _SLOT]
            hole = at
        at = (at + _SLOT) % size
    table[hole : hole + _SLOT] = _FREE


def _place(table: bytearray, member: bytes | bytearray) -> int:
    return (int.from_bytes(member[:4]) * (len(table) // _SLOT) >> 32) * _SLOT


def _slots(chunk: bytes) -> Iterator[bytes]:
    return (chunk[at : at + _SLOT] for at in range(0, len(chunk), _SLOT))
