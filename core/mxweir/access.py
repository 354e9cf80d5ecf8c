"""Allow and block lists: the first entry that matches, in the order written, wins."""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from mxweir.config import AccessEntry
from mxweir.facts import READERS, Facts, Folder


class Entry(NamedTuple):
    """One entry in force; `order` is its place in the list, `expires` in seconds since the epoch."""

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


class AccessList:
    """Looked up by value, not walked: ten thousand entries cost what one costs."""

    def __init__(self, entries: Sequence[AccessEntry], folder: Folder) -> None:
        self.empty = not entries
        self._values: dict[str, dict[str, list[Entry]]] = {}
        self._networks: dict[tuple[int, int], dict[int, list[Entry]]] = {}
        for order, written in enumerate(entries):
            key = written.allow or written.block or ""
            value = written.value if key == "client_network" else folder.key(key, written.value)
            expires = float("inf") if written.expires is None else written.expires
            entry = Entry(order, written.allow is not None, key, value, written.reason, expires)
            if key == "client_network":
                network = ipaddress.ip_network(value)
                shift = network.max_prefixlen - network.prefixlen
                found = self._networks.setdefault((network.version, shift), {})
                found.setdefault(int(network.network_address) >> shift, []).append(entry)
            else:
                self._values.setdefault(key, {}).setdefault(value, []).append(entry)

    def find(self, facts: Facts, now: float) -> Entry | None:
        """The first entry in force that matches; `now` in seconds since the epoch."""
        if self.empty:
            return None
        best: Entry | None = None
        for key, values in self._values.items():
            for entry in values.get(READERS[key](facts), ()):
                if entry.expires > now and (best is None or entry.order < best.order):
                    best = entry
        if self._networks:
            best = self._find_network(facts.client.address, now, best)
        return best

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
