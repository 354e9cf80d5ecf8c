"""The servers that are measured: the no-op server, and mxweir doing everything it does in service."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mxweir_bench import usage
from mxweir_ops.lab.place import free_port
from mxweir_ops.lab.process import Child, LabError, program

LIMITS = ("client_network", "sender", "sender_org", "recipient", "recipient_domain")
"""The keys that are limited, in this order; the limits have the same names."""

RECIPIENT_DOMAINS = tuple(f"rcptdom{n}.example" for n in range(1009))
"""The domains of the load generator's recipients."""

IN_MEMORY = Path("/dev/shm")
"""Where temporary files go if it is there: no disk in the figures."""

LASTING = "100000/day"
"""A rate that is not hit in a run, and so low that Redis finds again what a key has counted."""

_RATE = "10000000/minute"
_MXWEIR = Path(sys.executable).with_name("mxweir")


@dataclass(frozen=True, slots=True)
class Server:
    """A running policy server.

    `name` stands in the tables, `address` is where the load generator reaches
    it, `pids` are its processes; `log` is what it prints, a line a decision if
    `logs_decisions`. It and its load have only these `cores`, as taskset takes them.
    """

    name: str
    address: str
    pids: Callable[[], list[int]]
    log: Path
    logs_decisions: bool = False
    cores: str = ""

    def ask(self, request: bytes) -> str:
        """The answer to one request, without the blank line behind it."""
        answer = b""
        with connect(self.address) as client:
            client.sendall(request)
            while not answer.endswith(b"\n\n") and (part := client.recv(4096)):
                answer += part
        return answer.decode().strip()


def on_cores(cores: str) -> list[str | Path]:
    """What is put before a command that is to have these cores; all, if none is named."""
    return [program("taskset", "util-linux"), "--cpu-list", cores] if cores else []


@contextmanager
def noop(program: Path, directory: Path, *, unix: bool = False) -> Iterator[Server]:
    """The no-op server, on loopback or on a unix socket."""
    address, log = _address("noop", directory, unix=unix), directory / "noop.log"
    with running("noop", [program, address], address, log) as child:
        yield Server("noop", address, members(child), log)


@contextmanager
def floor(directory: Path, microseconds: float) -> Iterator[Server]:
    """A server on the daemon's event loop that waits, busily, and answers without having read."""
    address, log = _address("floor", directory, unix=False), directory / "floor.log"
    argv: list[str | Path] = [
        sys.executable,
        Path(__file__).with_name("floor.py"),
        address,
        str(microseconds),
    ]
    with running("floor", argv, address, log) as child:
        yield Server("floor", address, members(child), log)


@contextmanager
def mxweir(
    name: str, directory: Path, *, level: str = "warning", unix: bool = False, **configured: str
) -> Iterator[Server]:
    """`mxweir policyd` with one worker, the relay check and five limits, or as `configure` is told.

    At `level` "info" every decision has its line. LabError when it does not start.
    """
    home = directory / name.replace(" ", "-")
    address, log = _address("policy", home, unix=unix), home / "log"
    config = configure(home, address, level, **configured)
    with running(name, [_MXWEIR, "policyd", "--config", config], address, log) as child:
        yield Server(name, address, members(child), log, logs_decisions=level == "info")


def members(child: Child) -> Callable[[], list[int]]:
    """The processes of a server that is a child of ours."""
    return partial(usage.group, child.pid)


def limits(keys: Sequence[str] = LIMITS, rate: str = _RATE, **rates: str) -> str:
    """A limit for each of these keys as the configuration has it, far from being hit but for `rates`."""
    return "".join(
        f'[[limit]]\nname = "{key}"\nkey = "{key}"\nrate = "{rates.get(key, rate)}"\n' for key in keys
    )


def configure(
    home: Path,
    address: str,
    level: str = "warning",
    save_every: str = "1m",
    counted: str = "",
    redis: str = "",
) -> Path:
    """Write what is measured: the limits `counted`, by default `limits()`, otherwise the defaults.

    They are counted in the process, or in Redis at the address `redis`. `home` is
    made, with the state directory and the domains file in it; returns the
    configuration's path.
    """
    (home / "state").mkdir(parents=True)
    (home / "domains").write_text("".join(f"{domain}\n" for domain in RECIPIENT_DOMAINS))
    listen = address if address.startswith("unix:") else f"inet:{address}"
    shared = f'[redis]\nurl = "{redis}"\n' if redis else ""
    path = home / "mxweir.toml"
    path.write_text(f"""\
state_dir = "{home}/state"
[policyd]
listen = ["{listen}"]
maps = []
http = "inet:127.0.0.1:{free_port()}"
workers = 1
save_every = "{save_every}"
[domains]
file = "{home}/domains"
[log]
level = "{level}"
decisions = "1000000/second"
{shared}{counted or limits()}""")
    return path


def check_work(server: Server, asked: bytes, explained: bytes) -> None:
    """Prove that mxweir does what it is measured for; LabError says what it leaves out.

    Our domain passes, a foreign one is refused, and `mxweir explain` shows that
    all five limits are asked. It is shown a second request: what was asked
    before would not be counted again.
    """
    foreign = asked.replace(b"@rcptdom", b"@foreign-rcptdom")
    if (answer := server.ask(asked)) != "action=DUNNO":
        raise LabError(f"{server.name} answers a recipient of ours with {answer!r}")
    if not (answer := server.ask(foreign)).startswith("action=550 5.7.1 "):
        raise LabError(f"{server.name} answers a foreign recipient with {answer!r}")
    argv: list[str | Path] = [_MXWEIR, "explain", "--json", "--config", server.log.with_name("mxweir.toml")]
    done = subprocess.run(argv, input=explained, capture_output=True, check=False)
    trail = json.dumps(json.loads(done.stdout)["trail"]) if done.stdout else done.stderr.decode()
    if missing := [name for name in LIMITS if f'"{name}"' not in trail]:
        raise LabError(f"{server.name} did not ask the limits {', '.join(missing)}: {trail}")


@contextmanager
def running(name: str, argv: Sequence[str | Path], address: str, log: Path) -> Iterator[Child]:
    """Any server, from when it answers at this address; LabError when it does not."""
    child = Child(name, argv, log)
    try:
        child.wait_ready(lambda: answers(address), 20)
        yield child
    finally:
        child.stop()


def _address(name: str, directory: Path, *, unix: bool) -> str:
    return f"unix:{directory}/{name}" if unix else f"127.0.0.1:{free_port()}"


def connect(address: str) -> socket.socket:
    """A connection to a policy server, with a timeout of 5 s."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        try:
            client.connect(address.removeprefix("unix:"))
        except OSError:
            client.close()
            raise
        return client
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), 5)


def answers(address: str) -> bool:
    """Whether a server listens there."""
    try:
        connect(address).close()
    except OSError:
        return False
    return True
