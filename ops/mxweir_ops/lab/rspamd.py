"""A private Rspamd: the shipped rules and modules as far as they work without network and Redis.

It shares nothing with an installed service: its own configuration, which reads no
local.d or override.d of the machine, its own directory, sockets and user. It
scans over HTTP, behind a password too, and serves as a milter of its own, so
that what Postfix's mail looks like to it can be compared.

It starts in about a second. What usually takes it twenty is the list of public
suffixes that it compiles into a pattern at each first start; this one has the few
that tests use. Its name server takes questions and answers none, and each is given
up after a twentieth of a second. A port that nobody has would not do: now and then
Rspamd meets the refusal of one question when it asks the next, which it then drops,
so that the same message got other symbols.
"""

import http.client
import os
import pwd
import socket
from contextlib import suppress
from pathlib import Path

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_ops.lab.place import connect, free_endpoint
from mxweir_ops.lab.process import Child, Freezable, program

_USER = "_rspamd"
_START_SECONDS = 60.0
_SUFFIXES = "com\nnet\norg\nde\nexample\ntest\n"

PASSWORD = "lab-password"  # noqa: S105 - of a server on loopback that lives for seconds
"""What the worker at `guarded` wants to hear in the header `Password`."""

_CONFIGURATION = """\
lua = "$RULESDIR/rspamd.lua";
.include "$CONFDIR/metrics.conf"
.include "$CONFDIR/actions.conf"
.include "$CONFDIR/groups.conf"
.include "$CONFDIR/composites.conf"
.include "$CONFDIR/modules.conf"
.include "$CONFDIR/settings.conf"
modules {{ path = "$PLUGINSDIR"; }}
options {{
    filters = "chartable,dkim,regexp";
    explicit_modules = ["settings"];
    url_tld = "{home}/suffixes";
    pidfile = "{home}/pid";
    tempdir = "{home}/data";
    control_socket = "{home}/data/control mode=0600";
    cache_file = "{home}/data/symbols.cache";
    hs_cache_dir = "{home}/data/";
    allow_raw_input = true;
    history_rows = 1;
    dns {{ nameserver = ["127.0.0.1:{names}"]; timeout = 0.05s; retransmits = 1; sockets = 1; }}
}}
logging {{ type = "console"; level = "notice"; }}
worker "normal" {{ bind_socket = "{scans}"; count = {workers}; }}
worker "controller" {{ bind_socket = "{guarded}"; count = 1; password = "{password}"; }}
worker "rspamd_proxy" {{
    bind_socket = "{milter}";
    count = {workers};
    milter = yes;
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
.include(priority=10,duplicate=merge) "{home}/rules"
"""

_WITHOUT = ("asn", "fuzzy_check", "phishing", "rbl", "rspamd_update")
"""Modules that do nothing but ask the network."""


class Rspamd(Freezable):
    """One private Rspamd, running from `start()` (or `with`) to `stop()`.

    It scans at `endpoint`: a unix socket, or 127.0.0.1 when a port is given; at
    `guarded` with the password only; at `milter` it is a milter. `rules` are lines
    of its configuration that go over all others.
    """

    def __init__(self, directory: Path, rules: str = "", port: int | None = None, workers: int = 1):
        self.directory = directory / "rspamd"
        self.endpoint: Endpoint = Inet("127.0.0.1", port) if port else Unix(str(self.directory / "scans"))
        self.guarded = free_endpoint()
        self.milter = Unix(str(self.directory / "milter"))
        self._rules = rules
        self._workers = workers
        self._names: socket.socket | None = None

    def start(self) -> None:
        """Start it and wait until it answers; LabError says why it does not."""
        rspamd = program("rspamd", "rspamd")
        if self._names is None:
            self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._names.bind(("127.0.0.1", 0))
        self._lay_out(self._names.getsockname()[1])
        argv: list[str | Path] = [
            rspamd,
            "--no-fork",
            f"--config={self.directory / 'rspamd.conf'}",
            f"--var=DBDIR={self.directory / 'data'}",
            f"--var=RUNDIR={self.directory}",
            f"--var=LOCAL_CONFDIR={self.directory / 'local'}",
            *([f"--user={_USER}", f"--group={_USER}"] if os.geteuid() == 0 else []),
        ]
        env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        self._child = Child("rspamd", argv, self.directory / "log", env)
        self._child.wait_ready(self.answers, _START_SECONDS)

    def stop(self) -> None:
        """Stop it, and its name server."""
        super().stop()
        if self._names is not None:
            self._names.close()
            self._names = None

    def answers(self) -> bool:
        """Whether all its workers are there and the scanning one answers `/ping`."""
        with suppress(OSError, http.client.HTTPException):
            for endpoint in (self.guarded, self.milter):
                connect(endpoint, 1.0).close()
            return _get(connect(self.endpoint, 1.0), "/ping") == b"pong\r\n"
        return False

    def _lay_out(self, names: int) -> None:
        data, override = self.directory / "data", self.directory / "local" / "override.d"
        for directory in (data, override):
            directory.mkdir(parents=True, exist_ok=True)
        for module in _WITHOUT:
            (override / f"{module}.conf").write_text("enabled = false;\n")
        if os.geteuid() == 0:
            os.chown(data, pwd.getpwnam(_USER).pw_uid, -1)
        (self.directory / "suffixes").write_text(_SUFFIXES)
        (self.directory / "rules").write_text(self._rules)
        text = _CONFIGURATION.format(
            home=self.directory,
            scans=_bind(self.endpoint),
            guarded=_bind(self.guarded),
            milter=_bind(self.milter),
            password=PASSWORD,
            names=names,
            workers=self._workers,
        )
        (self.directory / "rspamd.conf").write_text(text)


def _bind(endpoint: Endpoint) -> str:
    return f"{endpoint.path} mode=0666" if isinstance(endpoint, Unix) else f"{endpoint.host}:{endpoint.port}"


def _get(connection: socket.socket, path: str) -> bytes:
    """The body that a server answers to GET. Raises OSError or HTTPException; closes the connection."""
    client = http.client.HTTPConnection("localhost")
    client.sock = connection
    try:
        client.request("GET", path)
        return client.getresponse().read()
    finally:
        client.close()
