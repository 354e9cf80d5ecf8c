"""The daemons do all they do under the filters of the units that ship."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.confined import Confined
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, command
from mxweir_ops.lab.host import PATIENCE, Host, add, prepare
from mxweir_ops.lab.mta import Mta
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import program, wait_until
from mxweir_ops.lab.redis import Redis
from mxweir_ops.lab.spamd import Spamd
from mxweir_policyd.postfix.keeping import PostfixMaps

UNITS = Path(__file__).parents[2] / "systemd"
POLICYD, MILTER = UNITS / "mxweir-policyd.service", UNITS / "mxweir-milter.service"

RULES = """\
[[limit]]
name = "sender"
key = "sender"
rate = "3/hour"
"""

Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as found:
        yield found


@pytest.fixture
def run(directory: Path) -> Run:
    """Runs a line of Python under a unit's filters."""

    def run(line: str, unit: Path = POLICYD) -> subprocess.CompletedProcess[str]:
        argv = Confined(unit).argv([sys.executable, "-c", line])
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=directory)

    return run


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        (f"import os; os.chown('.', {os.geteuid()}, -1)", "PermissionError: [Errno 1]"),
        ("import os; os.chroot('.')", "PermissionError: [Errno 1]"),
        (f"import socket; socket.socket({int(socket.AF_PACKET)})", "OSError: [Errno 97]"),
        ("import mmap; mmap.mmap(-1, 4096, prot=7)", "PermissionError: [Errno 1]"),
    ],
)
def test_what_a_unit_forbids_is_refused(run: Run, line: str, refusal: str) -> None:
    done = run(line)
    assert done.returncode == 1
    assert refusal in done.stderr


def test_what_a_unit_allows_is_done_and_by_children_too(run: Run) -> None:
    done = run("import os, socket; socket.socket(socket.AF_UNIX); os.nice(1); os.system('echo done')")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_policy_daemon_with_all_its_processes_and_backends(directory: Path, database: str) -> None:
    program("postmap", "postfix")
    prepare(database, "one.example")
    tables = PostfixMaps(directory / "tables")
    with Redis(directory) as redis:
        domains = f'postfix_lmdb = "{directory}/tables"\n[redis]\nurl = "{redis.unix_url}"\ntimeout = "2s"\n'
        host = Host(directory, database, domains=domains + RULES, policyd='workers = 2\ndeadline = "5s"')
        host.manager = Confined(POLICYD)
        with host:
            assert host.follows()
            add(database, "two.example")
            assert host.comes_to("DUNNO", "two.example")
            assert host.comes_to("550", "foreign.example")
            assert wait_until(lambda: tables.count() == 2, PATIENCE)
            _limit_holds(host)
            _commands_work(host)
            host.reload()
            host.wait_for(event="configuration reloaded")
    assert _complaints(host) == []


def _limit_holds(host: Host) -> None:
    with PolicyClient(host.addresses.policy, PATIENCE) as client:
        answers = [client.ask(recipient="x@one.example", instance=str(number)) for number in range(4)]
    assert [answer.split()[0] for answer in answers] == ["DUNNO"] * 3 + ["550"]


def _commands_work(host: Host) -> None:
    for verb, *words in (
        ("limits", "top"),
        ("block", "sender_org", "bulk.example"),
        ("explain", "--sender", "a@other.example", "--recipient", "x@one.example"),
    ):
        done = subprocess.run(
            command(verb, host.config_file, *words), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_policy_daemon_alone_saves_its_counters_and_has_them_again(directory: Path) -> None:
    setup = _setup(directory)
    daemon = Daemon("policyd", directory / "mxweir.toml", Confined(POLICYD))
    for expected in ("DUNNO", "550"):
        with daemon, PolicyClient(setup.addresses.policy, PATIENCE) as client:
            answers = [client.ask(instance=f"{expected}.{number}") for number in range(3)]
            assert [answer.split()[0] for answer in answers] == [expected] * 3
    assert _complaints(daemon) == []


@pytest.mark.parametrize("front", ["asyncio", "libmilter"])
def test_the_milter_scans(directory: Path, spamd: Spamd, front: str) -> None:
    if front == "libmilter":
        pytest.importorskip("Milter")
    setup = _setup(directory, spamd, f'front = "{front}"\ndeadline = "20s"\n')
    daemon = Daemon("milter", directory / "mxweir.toml", Confined(MILTER))
    with daemon, closing(Mta(setup.addresses.milter, PATIENCE)) as session:
        session.negotiate()
        session.greet()
        marks = [data for letter, data in session.deliver() if letter == b"h"]
        assert any(b"X-Spam-Scanner" in mark for mark in marks), marks
        daemon.reload()
        daemon.wait_for(event="configuration reloaded")
    assert _complaints(daemon) == []


def _setup(directory: Path, spamd: Spamd | None = None, milter: str = "") -> Setup:
    (directory / "domains").write_text("example.org\n")
    setup = Setup(
        addresses=Addresses.in_directory(directory),
        state_dir=directory / "state",
        domains_file=directory / "domains",
        engine=spamd.endpoint if spamd else None,
        milter=milter,
        rest=f'{RULES}[log]\nformat = "json"\n',
    )
    setup.state_dir.mkdir()
    (directory / "mxweir.toml").write_text(setup.toml())
    return setup


def _complaints(daemon: Daemon) -> list[str]:
    """What it says of a filter; that a busy machine is slow is nothing that the filters have done."""
    refusals = os.strerror(errno.EPERM), os.strerror(errno.EAFNOSUPPORT)
    return [line for line in daemon.log().splitlines() if any(refusal in line for refusal in refusals)]
