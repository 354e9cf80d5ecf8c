"""Bring the domains file into the replica, and notice when it changes."""

import os
from math import inf
from pathlib import Path
from time import monotonic

from mxweir.domains.record import FROM_FILE
from mxweir.events import Observer, Trouble, notice, warning
from mxweir_policyd.relaydomains.replica import Replica, ShrinkError
from mxweir_policyd.relaydomains.sources.file import read_domains
from mxweir_policyd.relaydomains.tablefile import ReplicaError

_AGAIN_AFTER = 60.0
"""Seconds until a load that failed, as on a full disk, is tried again."""

_TOLD = 10
"""Bad lines that are told one by one."""


class DomainsFile:
    """The file of `[domains] file`; a missing one changes nothing."""

    def __init__(self, path: Path, max_shrink: float) -> None:
        self._path = path
        self._max_shrink = max_shrink
        self._seen: tuple[int, ...] | None = ()  # as no file is: not even a missing one was looked at yet
        self._again = inf

    def changed(self) -> bool:
        """Whether the file is another one than at the last `load`, or that one failed a while ago."""
        return self._signature() != self._seen or monotonic() > self._again

    def load(self, replica: Replica, observe: Observer) -> bool:
        """Let the replica's domains from the file be what the file says now; tells what came of it.

        False where it could not be done and is to be tried again.
        """
        self._seen, self._again = self._signature(), inf
        if self._seen is None:
            observe(warning("domains file not there", file=str(self._path), effect="known domains stay"))
            return True
        try:
            found = read_domains(self._path, FROM_FILE)
            for line in found.bad[:_TOLD]:
                observe(warning("domains file: line skipped", line=line.number, why=line.what))
            if len(found.bad) > _TOLD:
                observe(warning("domains file: lines skipped", count=len(found.bad)))
            changed = replica.replace(FROM_FILE, found.records, self._max_shrink)
        except ShrinkError as error:
            hint = "if that is meant, run: mxweir domains verify --accept"
            observe(Trouble("domains file refused", f"{self._path}: {error}; {hint}", "error"))
        except (ReplicaError, OSError) as error:
            self._again = monotonic() + _AGAIN_AFTER
            observe(Trouble("domains file not loaded", f"{self._path}: {error}", "error"))
            return False
        else:
            observe(notice("domains loaded", file=str(self._path), **changed._asdict()))
        return True

    def _signature(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        # The change time too: a file that could not be read may be mended by chmod alone.
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
