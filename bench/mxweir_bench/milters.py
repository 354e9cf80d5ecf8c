"""The milters that are measured, and the scanner behind those that have one."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_bench import usage
from mxweir_bench.delivery import slug
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, get
from mxweir_ops.lab.place import connect, free_endpoint
from mxweir_ops.lab.process import Child, program

_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Milter:
    """A running milter: its name in the tables, where Postfix reaches it, and its processes."""

    name: str
    endpoint: Endpoint
    pids: Callable[[], Sequence[int]]

    @property
    def setting(self) -> str:
        """The value of smtpd_milters that has Postfix ask it, and refuse mail when it does not answer."""
        return f"{{ {self.endpoint}, default_action=tempfail }}"


@dataclass(frozen=True, slots=True)
class Ours:
    """mxweir's milter, as a milter, as a daemon, and by its HTTP pages."""

    milter: Milter
    daemon: Daemon
    http: Inet

    def metric(self, line: str) -> float:
        """The value of one line of /metrics, named with its labels; 0 when it is not there."""
        _, text = get(self.http, "/metrics")
        values = [shown.rpartition(" ") for shown in text.splitlines()]
        return sum(float(value) for name, _, value in values if name == line)


@dataclass(frozen=True, slots=True)
class Engine:
    """The scanner that answers at once."""

    endpoint: Unix

    def answered(self) -> int:
        """Messages that it has answered."""
        with connect(self.endpoint) as client:
            client.sendall(b"COUNT SPAMC/1.5\r\n\r\n")
            return int(client.makefile().read())


@contextmanager
def engine(fakespamd: Path, directory: Path) -> Iterator[Engine]:
    """The C program at a unix socket; LabError when it does not start."""
    endpoint = Unix(str(directory / "engine"))
    with _running("fakespamd", [fakespamd, str(endpoint)], endpoint, directory):
        yield Engine(endpoint)


@contextmanager
def accept(name: str, directory: Path, *, unix: bool = True, body_alone: bool = False) -> Iterator[Milter]:
    """The milter on pymilter that only accepts (accept.py); LabError when it does not start."""
    endpoint = _endpoint(name, directory, unix=unix)
    where = str(endpoint) if isinstance(endpoint, Unix) else f"inet:{endpoint.port}@{endpoint.host}"
    argv: list[str | Path] = [sys.executable, "-P", Path(__file__).with_name("accept.py"), where]
    argv += ["body"] if body_alone else []
    with _running(name, argv, endpoint, directory) as child:
        yield Milter(name, endpoint, lambda: usage.group(child.pid))


@contextmanager
def floor(name: str, directory: Path) -> Iterator[Milter]:
    """The milter on the daemon's event loop that looks at nothing (milterfloor.py)."""
    endpoint = Unix(str(directory / slug(name)))
    argv: list[str | Path] = [sys.executable, Path(__file__).with_name("milterfloor.py"), endpoint.path]
    with _running(name, argv, endpoint, directory) as child:
        yield Milter(name, endpoint, lambda: usage.group(child.pid))


@contextmanager
def spamass(name: str, directory: Path, asked: Engine) -> Iterator[Milter]:
    """spamass-milter as Debian runs it, but that it does not pass over mail from 127.0.0.1."""
    endpoint = Unix(str(directory / "spamass"))
    argv: list[str | Path] = [program("spamass-milter", "spamass-milter"), "-p", endpoint.path]
    argv += ["-u", "spamass-milter", "--", "-U", asked.endpoint.path]
    program("spamc", "spamc")
    with _running(name, argv, endpoint, directory) as child:
        # Debian's unit sets owner and mode itself, too: otherwise only root could connect.
        os.chmod(endpoint.path, 0o666)
        yield Milter(name, endpoint, lambda: usage.group(child.pid))


@contextmanager
def mxweir(
    name: str, directory: Path, engines: str, front: str, *, unix: bool = True, milter: str = ""
) -> Iterator[Ours]:
    """`mxweir milter` with the shipped settings, but that it does not pass over mail from 127.0.0.1.

    `engines` are the configuration's `[[milter.engine]]` tables, `milter` more
    lines of `[milter]`. LabError when it does not start.
    """
    home = directory / slug(name)
    (home / "state").mkdir(parents=True)
    (home / "domains").write_text("rcptdom1.example\n")
    http, endpoint = free_endpoint(), _endpoint("milter", home, unix=unix)
    setup = Setup(
        addresses=Addresses(Unix(f"{home}/policy"), Unix(f"{home}/maps"), endpoint, free_endpoint(), http),
        state_dir=home / "state",
        domains_file=home / "domains",
        group="postfix",
        milter=f'front = "{front}"\nskip = []\n{milter}',
        rest=engines,
    )
    config = home / "mxweir.toml"
    config.write_text(setup.toml())
    with Daemon("milter", config) as daemon:
        yield Ours(Milter(name, endpoint, lambda: usage.group(daemon.child.pid)), daemon, http)


def spamd(endpoint: Endpoint, more: str = "") -> str:
    """The table that configures an engine of the kind `spamd`; `more` are lines after it."""
    return f'[[milter.engine]]\ntype = "spamd"\naddress = "{endpoint}"\n{more}\n'


def rspamd(endpoint: Endpoint, more: str = "") -> str:
    """The same of the kind `rspamd`."""
    return f'[[milter.engine]]\ntype = "rspamd"\naddress = "{endpoint}"\n{more}\n'


def _endpoint(name: str, directory: Path, *, unix: bool) -> Endpoint:
    return Unix(str(directory / slug(name))) if unix else free_endpoint()


@contextmanager
def _running(name: str, argv: Sequence[str | Path], endpoint: Endpoint, directory: Path) -> Iterator[Child]:
    """Any server, from when it can be reached; LabError when it cannot."""
    child = Child(name, argv, directory / f"{slug(name)}.log")
    try:
        child.wait_ready(lambda: _accepts(endpoint), _START_SECONDS)
        yield child
    finally:
        child.stop()


def _accepts(endpoint: Endpoint) -> bool:
    with suppress(OSError), connect(endpoint):
        return True
    return False
