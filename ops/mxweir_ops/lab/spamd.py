"""A private SpamAssassin daemon: the rules as shipped, local tests only, two children.

It shares nothing with an installed service: its own socket, pid file, home and
site configuration, so that neither a tuned local.cf nor a learned Bayes
database changes what a test or a demonstration shows.
"""

import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.process import Child, Freezable, MissingError, program

_USERS = ("debian-spamd", "nobody")
_START_SECONDS = 60.0
_SITE_DIRECTORIES = ("/etc/spamassassin", "/etc/mail/spamassassin")

_RULES = """\
use_bayes 0
required_score 5
"""


class Spamd(Freezable):
    """One private spamd, running from `start()` (or `with`) to `stop()`.

    It listens on a unix socket, or on 127.0.0.1 when a port is given. `rules` are
    lines that go after the shipped ones.
    """

    def __init__(self, directory: Path, rules: str = "", port: int | None = None):
        self.directory = directory / "spamd"
        self.endpoint: Endpoint = (
            Inet("127.0.0.1", port) if port else Unix(str(self.directory / "spamd.sock"))
        )
        self._rules = rules

    def start(self) -> None:
        """Start it and wait until it answers PING; LabError says why it does not."""
        spamd = program("spamd", "spamd")
        self._lay_out()
        user = _unprivileged_user()
        argv: list[str | Path] = [
            spamd,
            "--local",
            "--nouser-config",
            "--max-children=2",
            *_listen(self.endpoint),
            f"--pidfile={self.directory / 'spamd.pid'}",
            f"--siteconfigpath={self.directory / 'site'}",
            f"--helper-home-dir={self.directory / 'home'}",
            "--syslog=stderr",
            *([f"--username={user}"] if user else []),
        ]
        home = str(self.directory / "home")
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LANG": "C.UTF-8"}
        self._child = Child("spamd", argv, self.directory / "spamd.log", env)
        self._child.wait_ready(self.answers, _START_SECONDS)

    def answers(self) -> bool:
        """Whether a child answers PING (spamd's protocol, spamd/PROTOCOL) within a second."""
        with suppress(OSError), connect(self.endpoint, 1.0) as probe:
            probe.sendall(b"PING SPAMC/1.5\r\n\r\n")
            return b"PONG" in probe.recv(64)
        return False

    def _lay_out(self) -> None:
        user = _unprivileged_user()
        for name in ("", "site", "home"):
            (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o755)
        if user:
            owner = pwd.getpwnam(user)
            # It makes its socket and pid file itself after it has given up root.
            for name in ("", "home"):
                os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        for path in _plugin_lists():
            shutil.copy(path, self.directory / "site")
        (self.directory / "site" / "lab.cf").write_text(_RULES + self._rules)


def _listen(endpoint: Endpoint) -> list[str]:
    if isinstance(endpoint, Unix):
        return [f"--socketpath={endpoint.path}", "--socketmode=0666"]
    return [f"--listen={endpoint.host}:{endpoint.port}"]


def _plugin_lists() -> list[Path]:
    """The distribution's .pre files: they load the plugins that the shipped rules count on."""
    for directory in map(Path, _SITE_DIRECTORIES):
        if found := sorted(directory.glob("*.pre")):
            return found
    raise MissingError(f"spamd's plugin lists (*.pre) are in none of {', '.join(_SITE_DIRECTORIES)}")


def _unprivileged_user() -> str | None:
    """Whom spamd becomes when root starts it; None when it already is somebody else."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((user for user in _USERS if user in known), "nobody")
