"""A policy daemon that follows a PostgreSQL, with all its files in one directory."""

from contextlib import closing, suppress
from pathlib import Path

import psycopg

from mxweir.domains.reader import POSTGRES, PROGRESS, RECORDS, TableReader
from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, get
from mxweir_ops.lab.process import LabError, wait_until
from mxweir_policyd.relaydomains.migrate import migrate
from mxweir_policyd.relaydomains.progress import Progress

PATIENCE = 90.0
"""Seconds after which a test gives up; none of them is expected to take a tenth of it."""

_PATIENT = 'deadline = "3s"'
"""In which PostgreSQL surely has answered, however busy the machine is: the usual time is for mail."""


class Host(Daemon):
    """One MX with its own state; `ask` gives the first word of the answer for a domain: DUNNO, 450 or 550.

    `policyd` is lines of that table, which stay when it is configured anew.
    """

    def __init__(
        self,
        directory: Path,
        dsn: str,
        postgres: str = "",
        domains: str = "",
        log: str = 'format = "json"',
        policyd: str = _PATIENT,
    ) -> None:
        self.state = directory / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.domains = directory / "domains"
        self.domains.touch()
        self.addresses = Addresses.in_directory(directory)
        super().__init__("policyd", directory / "mxweir.toml")
        self._log, self._policyd = log, policyd
        self.configure(dsn, postgres, domains)

    def configure(self, dsn: str, postgres: str = "", domains: str = "") -> None:
        """Write the configuration; the others are lines of the tables of that name."""
        quoted = dsn.replace("\\", "\\\\").replace('"', '\\"')
        rest = f'{domains}\n[postgres]\ndsn = "{quoted}"\n{postgres}\n[log]\n{self._log}\n'
        setup = Setup(
            addresses=self.addresses,
            state_dir=self.state,
            domains_file=self.domains,
            policyd=self._policyd,
            rest=rest,
        )
        self.config_file.write_text(setup.toml())

    def ask(self, domain: str) -> str:
        """What Postfix is told about a recipient there, by its first word."""
        with PolicyClient(self.addresses.policy) as client:
            return client.ask(**USUAL | {"recipient": f"x@{domain}", "policy_context": "relay"}).split()[0]

    def comes_to(self, expected: str, domain: str, seconds: float = PATIENCE) -> bool:
        """Whether that becomes the answer in time."""
        return wait_until(lambda: self.ask(domain) == expected, seconds)

    def metric(self, name: str) -> float:
        """The sum of a metric's samples whose name and labels begin like this."""
        lines = get(self.addresses.policyd_http, "/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def follows(self) -> bool:
        """Whether its follower is up to date, in time."""
        return self.is_at("following")

    def is_at(self, state: str) -> bool:
        """Whether its follower comes to be at this, in time."""
        return wait_until(lambda: self.metric(f'mxweir_relay_follower{{state="{state}"}}') == 1.0, PATIENCE)

    @property
    def follower(self) -> int:
        """The process id of its follower; LabError when there is none in time."""
        found: list[int] = []  # looked for once: it may be gone at a second look

        def is_there() -> bool:
            found[:] = self._followers()
            return bool(found)

        if not wait_until(is_there, PATIENCE):
            raise LabError("there is no follower")
        return found[0]

    def _followers(self) -> list[int]:
        daemon = self.child.pid
        found = []
        for pid in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
            with suppress(OSError):  # it is gone
                if b"follower" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
        return found

    def progress(self) -> Progress:
        """How far its replica has come."""
        with closing(TableReader(self.state / POSTGRES, RECORDS)) as reader:
            return Progress.decode(reader.meta(PROGRESS))

    def content(self) -> set[str]:
        """The hashes in its replica, in hexadecimal."""
        with closing(TableReader(self.state / POSTGRES, RECORDS)) as reader:
            return {key.hex() for key, _ in reader.scan(b"", 10**6)}


def prepare(dsn: str, *domains: str) -> None:
    """Make the schema, and put domains in."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection, create=True)
    add(dsn, *domains)


def add(dsn: str, *domains: str) -> None:
    """Put domains in, in one transaction."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO mxweir.domains (name) VALUES (%s)", [(domain,) for domain in domains])


def remove(dsn: str, *domains: str) -> None:
    """Take domains out, in one transaction."""
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM mxweir.domains WHERE name = ANY(%s)", [list(domains)])
