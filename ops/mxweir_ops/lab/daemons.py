"""mxweir's own daemons as child processes, on a configuration written for the occasion."""

import http.client
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mxweir.config import load
from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir_ops.lab.manager import Manager
from mxweir_ops.lab.place import connect, free_endpoint
from mxweir_ops.lab.process import Child, Server, wait_until

_START_SECONDS = 60.0
_LOAD_SECONDS = 20.0
"""For the domains file: a test in which it is never loaded waits as long."""
_STOP_SECONDS = 90.0
_ANSWER_SECONDS = 20.0


def command(verb: str, config_file: Path, *words: str) -> list[str]:
    """The command line of `mxweir VERB WORDS --config FILE` with this very Python and these very packages."""
    # -P: what happens to lie in the current directory is no part of the program.
    return [sys.executable, "-P", "-m", "mxweir_ops", verb, *words, "--config", str(config_file)]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the daemons listen."""

    policy: Endpoint
    maps: Endpoint
    milter: Endpoint
    policyd_http: Inet
    milter_http: Inet

    @classmethod
    def in_directory(cls, directory: Path) -> Self:
        """Unix sockets in a directory, and free ports for the HTTP pages."""
        policy, maps, milter = (Unix(str(directory / name)) for name in ("policy", "maps", "milter"))
        return cls(policy, maps, milter, free_endpoint(), free_endpoint())

    @classmethod
    def on_loopback(cls) -> Self:
        """Free TCP ports for all of them."""
        return cls(*(free_endpoint() for _ in range(5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a configuration for the lab says; `policyd`, `milter` and `rest` are lines of TOML.

    `policyd` and `milter` are put into those tables, `rest` after them: limits,
    access lists, keys. `group` may connect to the unix sockets.
    """

    addresses: Addresses
    state_dir: Path
    domains_file: Path
    postfix_lmdb: Path | None = None
    engine: Endpoint | None = None
    engine_type: str = "spamd"
    group: str = ""
    policyd: str = ""
    milter: str = ""
    rest: str = ""

    def toml(self) -> str:
        """The text of the configuration file."""
        at = self.addresses
        lines = [
            f"state_dir = {_quoted(self.state_dir)}",
            "",
            "[policyd]",
            f'listen = ["{at.policy}"]',
            f'maps = ["{at.maps}"]',
            f'http = "{at.policyd_http}"',
            f'socket_group = "{self.group}"',
            self.policyd,
            "[milter]",
            f'listen = "{at.milter}"',
            f'http = "{at.milter_http}"',
            f'socket_group = "{self.group}"',
            self.milter,
        ]
        if self.engine is not None:
            lines += ["[[milter.engine]]", f'type = "{self.engine_type}"', f'address = "{self.engine}"', ""]
        lines += ["[domains]", f"file = {_quoted(self.domains_file)}"]
        if self.postfix_lmdb is not None:
            lines += [f"postfix_lmdb = {_quoted(self.postfix_lmdb)}"]
        lines += ["", self.rest]
        return "\n".join(lines) + "\n"


class Daemon(Server):
    """`mxweir policyd` or `mxweir milter`, from `start()` (or `with`) to `stop()`.

    Everything it logs goes to one file, across restarts. With a `manager`, it is
    handed that one's sockets at each start.
    """

    def __init__(self, verb: str, config_file: Path, manager: Manager | None = None):
        self.verb = verb
        self.config_file = config_file
        self.manager = manager
        self.log_file = config_file.with_name(f"{verb}.log")
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready; LabError says why it does not."""
        config = load(self.config_file)
        section = config.milter if self.verb == "milter" else config.policyd
        listen = config.milter.listen if self.verb == "milter" else config.policyd.listen[0]
        page = section.http
        name, argv = f"mxweir {self.verb}", command(self.verb, self.config_file)
        if self.manager is None:
            self._child = Child(name, argv, self.log_file)
        else:
            environment = {**os.environ, **self.manager.environment}
            self._child = Child(
                name, self.manager.argv(argv), self.log_file, environment, self.manager.numbers
            )
        self._child.wait_ready(
            lambda: get(page, "/readyz")[0] == 200 if isinstance(page, Inet) else _accepts(listen),
            _START_SECONDS,
        )
        if self.verb == "policyd" and isinstance(page, Inet):
            # Until then a domain that it does not know is not refused for good.
            wait_until(
                lambda: "\nmxweir_relay_domains_pending 1" not in get(page, "/metrics")[1], _LOAD_SECONDS
            )

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        if self._child is not None:
            self._child.stop(_STOP_SECONDS)
            self._child = None

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed since."""
        return self._child is not None

    @property
    def child(self) -> Child:
        """The running process; RuntimeError when there is none."""
        if self._child is None:
            raise RuntimeError(f"mxweir {self.verb} is not running")
        return self._child

    @property
    def workers(self) -> list[int]:
        """The ids of its worker processes, where it has some."""
        found = []
        for pid in _children(self.child.pid):
            with suppress(OSError):  # it is gone
                if b"mxweir_policyd.workers" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL."""
        self.child.kill()
        self._child = None

    def reload(self) -> None:
        """Tell it to read its configuration again (SIGHUP); it does so in its own time."""
        self.child.send(signal.SIGHUP)

    def log(self) -> str:
        """Everything it has logged."""
        return self.log_file.read_text(errors="backslashreplace") if self.log_file.exists() else ""

    def records(self, **fields: object) -> list[dict[str, Any]]:
        """The log's lines in which all these fields have these values; for format = "json"."""
        # Of a line that is being written, the beginning may be there already.
        whole = self.log().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if fields.items() <= line.items()]

    def wait_for(self, seconds: float = 90.0, **fields: object) -> dict[str, Any]:
        """The last such line, once there is one; TimeoutError when there is none in that many seconds."""
        if not wait_until(lambda: bool(self.records(**fields)), seconds):
            raise TimeoutError(f"mxweir {self.verb} logged no line with {fields}")
        return self.records(**fields)[-1]


def get(page: Inet, path: str) -> tuple[int, str]:
    """One of a daemon's HTTP pages: status and text; status 0 when nobody answers."""
    connection = http.client.HTTPConnection(page.host, page.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def connections(pid: int, endpoint: Endpoint) -> int:
    """How many connections that were made at a unix socket a process has open; 0 for one that is gone.

    Others that it has, such as to Redis, come and go when it likes.
    """
    if not isinstance(endpoint, Unix):
        raise TypeError(f"{endpoint} is not a unix socket")
    # proc(5): the inode and the path of the socket are the last two words.
    words = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    made = {f"socket:[{inode}]" for *_, inode, path in words if path == endpoint.path}
    count = 0
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                count += str(file.readlink()) in made
    return count


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _quoted(path: Path) -> str:
    """A path as a basic string of TOML, whose escapes are JSON's."""
    return json.dumps(str(path))


def _accepts(endpoint: Endpoint) -> bool:
    with suppress(OSError), connect(endpoint):
        return True
    return False
