"""The development run: everything on loopback ports, on files in one directory.

What is in the directory stays: an edited configuration is kept, and so are the
counters. Only a configuration that nobody has edited is written anew, because
whether there is a scanner may have changed.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from mxweir.config import Config
from mxweir.endpoint import Inet
from mxweir_ops import postfix
from mxweir_ops.lab.daemons import Addresses, Setup
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import LabError, Server
from mxweir_ops.lab.spamd import Spamd

ADDRESSES = Addresses(
    policy=Inet("127.0.0.1", 10040),
    milter=Inet("127.0.0.1", 10041),
    policyd_http=Inet("127.0.0.1", 10042),
    maps=Inet("127.0.0.1", 10043),
    milter_http=Inet("127.0.0.1", 10044),
)
SPAMD = Inet("127.0.0.1", 10045)

_DOMAINS = """\
# A relay domain a line, with its next hop where it has one. Read again whenever it changes.
example.org
example.net    smtp:[127.0.0.1]:10025
"""

_RULES = """\
# A client on this host counts as a stranger here, so that there is something to see.
[keys]
mynetworks = []

[[limit]]
name = "sender"
key = "sender"
rate = "10/minute"

[[limit]]
name = "mailbox"
key = "recipient"
rate = "60/minute"

[[access]]
block = "sender_org"
value = "blocked.example"
reason = "an example of a block"
"""

_MILTER = """\
skip = ["authenticated"]
reject_at = 12.0
"""


class Development(Server):
    """The files, and a private spamd where the machine has one, from `start()` to `stop()`."""

    def __init__(self, directory: Path):
        self.directory = directory.resolve()
        self.config_file = self.directory / "mxweir.toml"
        self._running = ExitStack()
        self._without = ""

    def start(self) -> None:
        """Make what is missing; OSError where that cannot be."""
        (self.directory / "state").mkdir(parents=True, exist_ok=True)
        domains = self.directory / "domains"
        if not domains.exists():
            domains.write_text(_DOMAINS)
        try:
            self._start_spamd()
        except LabError as error:
            self._without = str(error)
        self._write_config()

    def stop(self) -> None:
        """Stop spamd; the directory stays."""
        self._running.close()

    def told(self, config: Config) -> Iterator[str]:
        """Lines for the person who started it: what listens where."""
        yield f"mxweir, a development run in {self.directory}"
        yield f"  policy    {', '.join(map(str, config.policyd.listen))}"
        yield f"  milter    {config.milter.listen}"
        yield f"  maps      {', '.join(map(str, config.policyd.maps)) or 'off'}"
        pages = [page for page in (config.policyd.http, config.milter.http) if isinstance(page, Inet)]
        yield f"  metrics   {'  '.join(f'http://{page.host}:{page.port}/metrics' for page in pages)}"
        if self._without:
            yield f"  no spamd  {self._without}: mail passes unscanned, and is marked so"
        else:
            yield f"  spamd     {SPAMD} (private, local tests only)"
        yield f"  files     {self.config_file}, {config.domains.file}"
        yield ""
        yield "To try it with the Postfix of this host, in main.cf:"
        yield ""
        yield from (line for line in postfix.main_cf(config) if line and not line.startswith("#"))

    def _start_spamd(self) -> None:
        # Not under our directory: spamd gives up root, and a checkout may lie where only root may go.
        place = self._running.enter_context(temporary_directory())
        self._running.enter_context(Spamd(place, port=SPAMD.port))

    def _write_config(self) -> None:
        with_spamd, without = (self._setup(engine) for engine in (SPAMD, None))
        if not self.config_file.exists() or self.config_file.read_text() in (with_spamd, without):
            self.config_file.write_text(without if self._without else with_spamd)

    def _setup(self, engine: Inet | None) -> str:
        return Setup(
            addresses=ADDRESSES,
            state_dir=self.directory / "state",
            domains_file=self.directory / "domains",
            engine=engine,
            milter=_MILTER,
            rest=_RULES,
        ).toml()
