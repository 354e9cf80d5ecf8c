"""Whose domain it is, from the tables of the policy daemon on this host."""

import threading
from pathlib import Path

from mxweir.domains.reader import DomainReader


class Tenants:
    """Reads the tables from any thread; the one that looks for new files must not close one that is read."""

    def __init__(self, state_dir: Path) -> None:
        self._reader = DomainReader(state_dir)
        self._one_at_a_time = threading.Lock()

    def of(self, domain: str) -> str:
        """The tenant of a folded domain; "" where it has none, or no table says so."""
        with self._one_at_a_time:
            return self._reader.find(domain).tenant

    def tick(self) -> None:
        """Look whether other files have come; call it every second or so."""
        with self._one_at_a_time:
            self._reader.tick()
