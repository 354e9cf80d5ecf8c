"""Allow and block lists: what an operator's command said, then what the configuration has.

Of the commands (`mxweir block`, `mxweir allow`) that match, the latest wins; of the
entries of the configuration, the first in the order written. A command goes before
every entry of the file: it is the later word, and the one that can be given in a
hurry.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from mxweir.config import AccessEntry
from mxweir.facts import READERS, Facts, Folder

T = TypeVar("T")


class Entry(NamedTuple):
    """One entry in force.

    The lowest `order` wins: the place in the file, or less than zero, and the lower
    the later, for a command. `expires` is in seconds since the epoch.
    """

    order: int
    allow: bool
    key: str
    value: str
    reason: str
    expires: float

    @property
    def rule(self) -> str:
        """The entry's name in logs and metrics; from a closed set, whatever the list holds."""
        return f"{'allow' if self.allow else 'block'} {self.key}"


class Index:
    """Entries by what they match. Looked up, not walked: a hundred thousand cost what one costs."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[Entry]]] = {}
        self._networks: dict[tuple[int, int], dict[int, list[Entry]]] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing can match."""
        return not self._values and not self._networks

    def put(self, entry: Entry) -> None:
        """Add an entry; its value is folded."""
        if entry.key == "client_network":
            kind, bits = _place(entry.value)
            self._networks.setdefault(kind, {}).setdefault(bits, []).append(entry)
        else:
            self._values.setdefault(entry.key, {}).setdefault(entry.value, []).append(entry)

    def drop(self, entry: Entry) -> None:
        """Take an entry out that was put in."""
        if entry.key == "client_network":
            kind, bits = _place(entry.value)
            networks = self._networks[kind]
            _remove(networks, bits, entry)
            if not networks:
                del self._networks[kind]
        else:
            values = self._values[entry.key]
            _remove(values, entry.value, entry)
            if not values:
                del self._values[entry.key]

    def find(self, facts: Facts, now: float) -> Entry | None:
        """The one of the lowest order that matches and has not expired; `now` in seconds since the epoch."""
        best: Entry | None = None
        for key, values in self._values.items():
            for entry in values.get(READERS[key](facts), ()):
                if entry.expires > now and (best is None or entry.order < best.order):
                    best = entry
        return self._find_network(facts.client.address, now, best) if self._networks else best

    def _find_network(self, client: str, now: float, best: Entry | None) -> Entry | None:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return best
        for (version, shift), networks in self._networks.items():
            if version == address.version:
                for entry in networks.get(int(address) >> shift, ()):
                    if entry.expires > now and (best is None or entry.order < best.order):
                        best = entry
        return best


class AccessList:
    """Both lists; `commands` is shared with whoever keeps it up to date."""

    def __init__(self, entries: Sequence[AccessEntry], folder: Folder, commands: Index | None = None) -> None:
        self._commands = Index() if commands is None else commands
        self._file = Index()
        for order, written in enumerate(entries):
            key = written.allow or written.block or ""
            value = written.value if key == "client_network" else folder.key(key, written.value)
            expires = float("inf") if written.expires is None else written.expires
            self._file.put(Entry(order, written.allow is not None, key, value, written.reason, expires))

    @property
    def empty(self) -> bool:
        """Whether nothing can match now."""
        return self._commands.empty and self._file.empty

    def find(self, facts: Facts, now: float) -> Entry | None:
        """The entry that decides; `now` in seconds since the epoch."""
        if not self._commands.empty and (found := self._commands.find(facts, now)) is not None:
            return found
        return self._file.find(facts, now)


def _place(network: str) -> tuple[tuple[int, int], int]:
    """The kind of a network, its version and the bits of its hosts, and the bits of the network."""
    parsed = ipaddress.ip_network(network)
    shift = parsed.max_prefixlen - parsed.prefixlen
    return (parsed.version, shift), int(parsed.network_address) >> shift


def _remove(found: dict[T, list[Entry]], key: T, entry: Entry) -> None:
    found[key].remove(entry)
    if not found[key]:
        del found[key]
