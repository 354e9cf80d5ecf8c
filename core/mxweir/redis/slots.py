"""Which slot of a Cluster a key is in, and what nodes say about slots. Pure.

Redis Cluster specification, "Key distribution model", "Redirection and resharding".
"""

from binascii import crc_hqx
from typing import Any, NamedTuple

from mxweir.endpoint import Inet
from mxweir.redis.errors import RedisError

SLOTS = 16384


class Range(NamedTuple):
    """Slots from `first` to `last`, and the nodes that have them: the master, then its replicas."""

    first: int
    last: int
    nodes: tuple[Inet, ...]


class Redirect(NamedTuple):
    """Where a call for a slot is to go; `moved` for good, or else for this once."""

    moved: bool
    slot: int
    to: Inet


def slot_of(key: bytes | str) -> int:
    """The slot of a key; of its hash tag, if it has one: what stands between the first { and the next }."""
    name = key.encode() if isinstance(key, str) else key
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    # CRC-16/XMODEM, which is what the standard library has under this name.
    return crc_hqx(name, 0) % SLOTS


def ranges_of(reply: Any, asked: str) -> list[Range]:
    """What CLUSTER SLOTS replies; `asked` is the host of the node that was asked.

    Raises RedisError: "nonsense" where it is something else, "down" where it is empty, as that of a node
    that has been taken out of the Cluster.
    """
    try:
        found = [_range(row, asked) for row in reply]
    except (TypeError, ValueError, AttributeError, LookupError):
        raise RedisError("nonsense", "what CLUSTER SLOTS replies is no map of slots") from None
    if not found:
        raise RedisError("down", "it knows no slots")
    return found


def redirect_of(text: str, asked: str) -> Redirect | None:
    """What an error reply such as "MOVED 3999 127.0.0.1:6381" says; None if it is no redirection."""
    words = text.split(" ")
    if words[0] not in ("MOVED", "ASK") or len(words) != 3:
        return None
    host, _, port = words[2].rpartition(":")
    try:
        slot, to = int(words[1]), Inet(host or asked, int(port))
    except ValueError:
        return None
    return Redirect(words[0] == "MOVED", slot, to) if 0 <= slot < SLOTS and 0 < to.port < 65536 else None


def _range(row: Any, asked: str) -> Range:
    first, last, *nodes = row
    if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last < SLOTS and nodes):
        raise ValueError
    return Range(first, last, tuple(_node(node, asked) for node in nodes))


def _node(node: Any, asked: str) -> Inet:
    """A node without a name is where we asked (CLUSTER SLOTS: "NULL ... the same endpoint")."""
    host, port = node[0], node[1]
    if not (isinstance(port, int) and 0 < port < 65536):
        raise ValueError
    name = host.decode() if host else ""
    # Redis says "?" for a host name that it was to announce and was not told.
    return Inet(asked if name in ("", "?") else name, port)
