"""What the tests of the policy daemon share: the daemon as a process, with files that may be spoiled."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, get
from mxweir_ops.lab.place import connect, temporary_directory

RULES = """
[[access]]
block = "sender"
value = "blocked@bulk.example"

[[limit]]
name = "sender"
key = "sender"
rate = "3/day"
"""
LOG = '[log]\nformat = "json"\ndecisions = "1000000/second"\n'


class Policyd(Daemon):
    """A policy daemon with its files in a directory of its own; unix sockets, JSON log.

    `always` is part of every configuration, and so are the keys `policyd`.
    """

    def __init__(self, directory: Path, rest: str = RULES, *, always: str = "", **policyd: str) -> None:
        self.directory = directory
        self._always = always
        self._policyd = policyd
        self.state = directory / "state"
        self.state.mkdir(exist_ok=True)
        self.domains = directory / "domains"
        self.domains.write_text("example.org\nexample.net\n.tree.example smtp:[192.0.2.25]\n")
        self.addresses = Addresses.in_directory(directory)
        super().__init__("policyd", directory / "mxweir.toml")
        self.configure(rest)

    def configure(self, rest: str = RULES, **policyd: str) -> None:
        """Write the configuration; `policyd` are keys of that table, as TOML."""
        lines = "".join(f"{key} = {value}\n" for key, value in (self._policyd | policyd).items())
        setup = Setup(
            addresses=self.addresses,
            state_dir=self.state,
            domains_file=self.domains,
            policyd=lines,
            rest=rest + self._always + LOG,
        )
        self.config_file.write_text(setup.toml())

    def client(self) -> PolicyClient:
        """A new connection."""
        return PolicyClient(self.addresses.policy)

    def ask(self, **attributes: str) -> str:
        """Ask one question on a connection of its own."""
        with self.client() as client:
            return client.ask(**attributes)

    def look_up(self, table: str, key: str) -> str:
        """Ask the map server on a connection of its own."""
        with connect(self.addresses.maps) as client:
            content = f"{table} {key}".encode()
            client.sendall(b"%d:%s," % (len(content), content))
            return client.recv(4096).decode().partition(":")[2].removesuffix(",")

    def page(self, path: str) -> tuple[int, str]:
        """One of its HTTP pages: status and text."""
        return get(self.addresses.policyd_http, path)

    def resident(self) -> int:
        """Bytes of memory that it uses now."""
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="package")
def kind() -> type[Policyd]:
    """The class of it, for tests further down that want another configuration."""
    return Policyd


@pytest.fixture(scope="package")
def policyd() -> Iterator[Policyd]:
    """The one that most tests share: none may stop it or change its configuration."""
    with temporary_directory() as directory, Policyd(directory) as daemon:
        yield daemon


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Policyd]:
    """A daemon that is the test's own; not started yet."""
    with temporary_directory() as directory:
        daemon = Policyd(directory)
        try:
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture
def sender(request: pytest.FixtureRequest) -> str:
    """A sender whom no other test uses, with room in every limit."""
    return f"s{abs(hash(request.node.nodeid))}@sender.example"
