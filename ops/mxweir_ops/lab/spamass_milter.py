"""SpamAssassin's other milter, to compare with: it hands each message to the program spamc."""

import os
import pwd
from pathlib import Path

from mxweir.endpoint import Endpoint, Unix
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.process import Child, Server, program

_START_SECONDS = 20.0


class SpamassMilter(Server):
    """One private instance in front of a spamd, running from `start()` (or `with`) to `stop()`.

    It marks, and refuses nothing. Needs root, because Postfix connects as another user.
    """

    def __init__(self, directory: Path, spamd: Endpoint):
        self.directory = directory / "spamass-milter"
        self.endpoint = Unix(str(self.directory / "milter"))
        self._spamd = spamd
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections; LabError says why it does not."""
        milter = program("spamass-milter", "spamass-milter")
        program("spamc", "spamc")
        self.directory.mkdir(exist_ok=True)
        spamc = ["-U", self._spamd.path] if isinstance(self._spamd, Unix) else _inet(self._spamd)
        argv: list[str | Path] = [milter, "-p", self.endpoint.path, "--", *spamc]
        env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        self._child = Child("spamass-milter", argv, self.directory / "log", env)
        self._child.wait_ready(self._accepts, _START_SECONDS)
        os.chown(self.endpoint.path, pwd.getpwnam("postfix").pw_uid, -1)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _accepts(self) -> bool:
        try:
            connect(self.endpoint, 1.0).close()
        except OSError:
            return False
        return True


def _inet(endpoint: Endpoint) -> list[str]:
    host, _, port = str(endpoint).removeprefix("inet:").rpartition(":")
    return ["-d", host, "-p", port]
