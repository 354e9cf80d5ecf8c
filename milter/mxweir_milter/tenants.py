"""Whose domain it is, from the tables of the policy daemon on this host."""

import threading
from pathlib import Path

from mxweir.domains.reader import DomainReader
from mxweir.events import Observer, Trouble


class Tenants:
    """Reads the tables from any thread; the one that looks for new files must not close one that is read.

    Nothing is opened before `open`: it takes a moment (the files are checked by
    another process), and who names no tenant shall not depend on those files.
    """

    def __init__(self, state_dir: Path, observe: Observer) -> None:
        self._state_dir = state_dir
        self._observe = observe
        self._failed: set[Path] = set()
        self._reader: DomainReader | None = None
        self._one_at_a_time = threading.Lock()

    def open(self) -> None:
        """Be ready to answer."""
        if self._reader is None:
            self._reader = DomainReader(self._state_dir)

    def of(self, domain: str) -> str:
        """The tenant of a folded domain; "" where it has none, or no table says so."""
        with self._one_at_a_time:
            return self._reader.find(domain).tenant if self._reader else ""

    def tick(self) -> None:
        """Look whether other files have come; call it every second or so."""
        with self._one_at_a_time:
            if self._reader is None:
                return
            self._reader.tick()
            failed = {table.path for table in (self._reader.postgres, self._reader.here) if table.failed}
        for path in failed - self._failed:
            detail = f"{path}: damaged or unreadable; its domains have no tenant until it is mended"
            self._observe(Trouble("tenants not read", detail))
        self._failed = failed
