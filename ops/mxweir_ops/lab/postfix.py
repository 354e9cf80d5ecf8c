"""A private Postfix: its own configuration, queue, log and port, on loopback only.

Nothing of the machine's own instance is read or changed; a Debian package that
was installed without a main.cf serves as well. There is no chroot, no syslog and
no init system. Mail for its relay domains is delivered into one maildir; mail
for anywhere else is never sent.

    with temporary_directory() as directory, Postfix(directory, {"relay_domains": "example.org"}) as mx:
        ...  # smtplib.SMTP("127.0.0.1", mx.port)
"""

import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mxweir_ops.lab.place import free_port
from mxweir_ops.lab.process import LabError, MissingError, Server, program, wait_until
from mxweir_ops.lab.sink import Maildir

_USER = "postfix"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_COMMAND_SECONDS = 60.0

_SERVICES = """\
127.0.0.1:{port} inet n - {chroot} - 200 smtpd
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
proxymap  unix  - - n - - proxymap
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
tlsmgr    unix  - - n 1000? 1 tlsmgr
showq     unix  n - n - - showq
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    """One private instance, running from `start()` (or `with`) to `stop()`.

    `settings` are main.cf parameters that go over the ones below, `services` are
    lines of master.cf beside ours. With `chroot`, smtpd sees nothing outside the
    queue directory, as on Debian. Starting it needs root, because Postfix's master
    does.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        port: int = 0,
        chroot: bool = False,
        services: str = "",
    ):
        self.directory = directory / "postfix"
        self.port = port or free_port()
        self.chroot = chroot
        self.services = services
        self.settings = dict(settings or {})
        self.maildir = Maildir(self.directory / "mail" / "all")
        self.log_file = self.directory / "log" / "mail.log"

    @property
    def master(self) -> int:
        """The process id of its master, which leads the session of all its processes."""
        return int((self.directory / "spool" / "pid" / "master.pid").read_text())

    @staticmethod
    def check() -> None:
        """Raise MissingError when this machine cannot run one at all."""
        program("postfix", "postfix")
        if os.geteuid() != 0:
            raise MissingError("a private Postfix needs root, because Postfix's master process does")

    @staticmethod
    def check_type(name: str) -> None:
        """Raise MissingError when this machine's Postfix does not know such tables."""
        known = subprocess.run(
            [program("postconf", "postfix"), "-m"], capture_output=True, text=True, check=False
        ).stdout
        if name not in known.split():
            raise MissingError(f"Postfix has no {name} tables (Debian's package postfix-{name} has them)")

    def prepare(self) -> None:
        """Write the configuration and make the directories; MissingError as `check`."""
        self.check()
        self._lay_out()
        self.write_settings()

    def start(self) -> None:
        """Start it and wait until it greets; LabError says why it does not."""
        self.prepare()
        printed = self._postfix("start")
        if not wait_until(self._greets, _START_SECONDS):
            last = (printed + self.log()).strip().splitlines()[-1:] or ["(no log)"]
            self.stop()
            raise LabError(f"the private Postfix does not answer on port {self.port}: {last[0]}")

    def stop(self) -> None:
        """Stop it and wait until its master is gone."""
        pid = self._master()
        if pid is None:
            return
        self._postfix("stop")
        if not wait_until(lambda: not _alive(pid), _STOP_SECONDS):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def reload(self, settings: Mapping[str, str]) -> None:
        """Put more parameters over the present ones and have every process read them."""
        self.settings.update(settings)
        self.write_settings()
        self._postfix("reload")

    def query(self, table: str, key: str) -> tuple[int, str, str]:
        """What `postmap -q` finds: its exit status (1: nothing), what it prints, what it complains of."""
        command = [str(program("postmap", "postfix")), "-c", str(self.directory / "etc"), "-q", key, table]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
        return done.returncode, done.stdout, done.stderr

    def log(self) -> str:
        """Everything this instance has logged."""
        return self.log_file.read_text(errors="backslashreplace") if self.log_file.exists() else ""

    def complaints(self) -> list[str]:
        """The log's lines that are a warning or worse."""
        bad = ("warning:", "error:", "fatal:", "panic:")
        return [line for line in self.log().splitlines() if any(word in line for word in bad)]

    def queued(self) -> dict[str, int]:
        """How many messages lie in each directory of the queue: incoming, active, deferred, hold."""
        spool = self.directory / "spool"
        directories = ("incoming", "active", "deferred", "hold")
        return {name: sum(path.is_file() for path in (spool / name).rglob("*")) for name in directories}

    def write_settings(self) -> None:
        """Write main.cf, with this instance's settings over the ones every instance has."""
        lines = [f"{name} = {value}" for name, value in (self._defaults() | self.settings).items()]
        (self.directory / "etc" / "main.cf").write_text("\n".join(lines) + "\n")

    def _lay_out(self) -> None:
        # postfix check wants these owners and modes; a package makes them for /var/spool/postfix only.
        for name in ("", "etc", "spool", "data", "log", "mail"):
            (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o755)
        owner = pwd.getpwnam(_USER).pw_uid
        for name in ("data", "mail"):
            os.chown(self.directory / name, owner, -1)
        (self.directory / "data").chmod(0o700)
        (self.directory / "etc" / "master.cf").write_text(
            _SERVICES.format(port=self.port, chroot="y" if self.chroot else "n") + self.services
        )

    def _defaults(self) -> dict[str, str]:
        user = pwd.getpwnam(_USER)
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self.directory / "spool"),
            "data_directory": str(self.directory / "data"),
            # Without both of these a private instance logs to a syslog that is not there.
            "maillog_file": str(self.log_file),
            "maillog_file_prefixes": str(self.directory),
            "syslog_name": f"mx{self.port}",
            "myhostname": "mx.lab.example",
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "all",
            # XCLIENT lets a test be any client; a client that is not announced this way is in mynetworks.
            "mynetworks": "127.0.0.0/8",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            # Nothing goes outside, whatever a test gets accepted.
            "default_transport": "discard",
            "relay_transport": "virtual",
            # By default every domain that the mailbox map knows is accepted, and this map knows all.
            "virtual_mailbox_domains": "",
            "virtual_mailbox_base": str(self.maildir.path.parent),
            "virtual_mailbox_maps": f"static:{self.maildir.path.name}/",
            "virtual_uid_maps": f"static:{user.pw_uid}",
            "virtual_gid_maps": f"static:{user.pw_gid}",
            "virtual_minimum_uid": "1",
            "smtpd_peername_lookup": "no",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "smtpd_client_connection_count_limit": "0",
            "in_flow_delay": "0",
        }

    def _postfix(self, verb: str) -> str:
        """Run `postfix VERB` for this instance; what it printed, which is little: it mostly logs."""
        return self._run("postfix", "-c", str(self.directory / "etc"), verb)

    @staticmethod
    def _run(name: str, *arguments: str) -> str:
        command = [str(program(name, "postfix")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
        return done.stdout + done.stderr

    def _master(self) -> int | None:
        try:
            pid = self.master
        except (OSError, ValueError):
            return None
        return pid if _alive(pid) else None

    def _greets(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as probe:
            return probe.recv(3) == b"220"
        return False


def parse_settings(text: str) -> dict[str, str]:
    """Lines as they stand in main.cf → parameters and values (postconf(5): comments, continued lines)."""
    settings: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            settings[name] = f"{settings[name]} {line.strip()}".strip()
            continue
        name, _, value = (part.strip() for part in line.partition("="))
        settings[name] = value
    return settings


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
