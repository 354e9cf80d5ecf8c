"""Postfix, mxweir's daemons and a scanner together, as on a real MX host.

Postfix gets the very lines that `mxweir config postfix` prints for the
configuration in use, so whoever uses a stack proves those lines too.
"""

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from mxweir.config import load
from mxweir.endpoint import Endpoint
from mxweir_ops import postfix
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, command
from mxweir_ops.lab.manager import Manager
from mxweir_ops.lab.postfix import Postfix, parse_settings
from mxweir_ops.lab.process import LabError, MissingError, Server, wait_until
from mxweir_ops.lab.sink import Maildir
from mxweir_policyd.postfix.rows import RELAY, TRANSPORT

_TABLE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a stack shall be; `policyd`, `milter` and `rest` are lines of TOML, as in Setup.

    `domains` is the content of the domains file. `settings` are main.cf
    parameters that go over the printed ones. Without `own_tables`, Postfix asks
    for domains by socketmap. `engine` None leaves out the milter altogether.
    With `chroot`, smtpd is locked into the queue directory, and the daemons'
    sockets are below it, as in a default installation on Debian.
    With `held`, the milter's socket is a service manager's, as with our units.
    """

    engine: Endpoint | None = None
    engine_type: str = "spamd"
    domains: str = "example.org\n"
    policyd: str = ""
    milter: str = ""
    rest: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    chroot: bool = False
    held: bool = False
    own_tables: bool = True


class Stack(Server):
    """The servers of a plan in one directory, from `start()` (or `with`) to `stop()`."""

    def __init__(self, directory: Path, plan: Plan):
        self.directory = directory
        self.plan = plan
        self.config_file = directory / "mxweir.toml"
        self.domains_file = directory / "domains"
        self.policyd = Daemon("policyd", self.config_file)
        self.milter = Daemon("milter", self.config_file)
        self.mx = Postfix(directory, chroot=plan.chroot)
        self.tables = directory / "postfix-tables"
        self.sockets = self.mx.directory / "spool" / "mxweir" if plan.chroot else directory
        self.addresses = Addresses.in_directory(self.sockets)
        self._manager = Manager()
        self._running = ExitStack()

    def start(self) -> None:
        """Write the files, start the daemons, then Postfix; LabError says in one line what is missing."""
        self.mx.check()
        if self.plan.own_tables:
            self.mx.check_type("lmdb")
        (self.directory / "state").mkdir(exist_ok=True)
        self.sockets.mkdir(parents=True, exist_ok=True)
        self.domains_file.write_text(self.plan.domains)
        self.write_config()
        if load(self.config_file).milter.front == "libmilter" and find_spec("Milter") is None:
            raise MissingError("pymilter is not installed: pip install 'mxweir[milter]'")
        if self.plan.held:
            self._hold_sockets()
        self._running.enter_context(self.policyd)
        if self.plan.engine is not None:
            self._running.enter_context(self.milter)
        self.mx.settings.update(self._settings())
        self.mx.prepare()
        if self.plan.own_tables and not wait_until(self._has_tables, _TABLE_SECONDS):
            raise LabError(f"mxweir made no tables for Postfix in {self.tables}")
        self._running.enter_context(self.mx)

    def stop(self) -> None:
        """Stop Postfix first, so that it meets no daemon that is gone."""
        self._running.close()

    def write_config(self, rest: str | None = None) -> None:
        """Write mxweir.toml, with other limits and lists than planned where `rest` is given."""
        setup = Setup(
            addresses=self.addresses,
            state_dir=self.directory / "state",
            domains_file=self.domains_file,
            postfix_lmdb=self.tables if self.plan.own_tables else None,
            engine=self.plan.engine,
            engine_type=self.plan.engine_type,
            group="postfix",
            policyd=self.plan.policyd,
            milter=self.plan.milter,
            rest=self.plan.rest if rest is None else rest,
        )
        self.config_file.write_text(setup.toml())

    def run(self, verb: str, *words: str) -> str:
        """Run `mxweir VERB WORDS` with this configuration; what it prints. Raises CalledProcessError."""
        argv = command(verb, self.config_file, *words)
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout

    @property
    def port(self) -> int:
        """Where Postfix accepts mail on 127.0.0.1."""
        return self.mx.port

    @property
    def maildir(self) -> Maildir:
        """Where the mail arrives."""
        return self.mx.maildir

    def _has_tables(self) -> bool:
        return all((self.tables / f"{name}.lmdb").exists() for name in (RELAY, TRANSPORT))

    def _hold_sockets(self) -> None:
        self._running.enter_context(self._manager)
        self._manager.listen("milter", self.sockets / "milter", "postfix")
        self.milter.manager = self._manager

    def _settings(self) -> dict[str, str]:
        """The printed lines, with only the places changed that are private here."""
        queue = str(self.mx.directory / "spool")
        printed = "\n".join(postfix.main_cf(load(self.config_file), queue))
        settings = parse_settings(printed)
        if self.plan.engine is None:
            settings.pop("smtpd_milters", None)
        return {**settings, **self.plan.settings}
