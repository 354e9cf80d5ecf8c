"""What no Postfix sends, what an operator gets wrong, what a disk does to files: nothing is lost by it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, command
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import format_request

JSON_LOG = '[log]\nformat = "json"\n'
LIMIT = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "10/hour"\nburst = 5\n'


class Policyd:
    """A policy daemon alone, on files that a test may spoil."""

    def __init__(self, directory: Path, domains: str = "example.org\n", state: Path | None = None):
        self.directory = directory
        self.state = state or directory / "state"
        self.state.mkdir(exist_ok=True)
        self.domains = directory / "domains"
        self.domains.write_text(domains)
        self.addresses = Addresses.in_directory(directory)
        self.setup = Setup(
            addresses=self.addresses,
            state_dir=self.state,
            domains_file=self.domains,
            policyd='save_every = "1s"',
            rest=LIMIT + JSON_LOG,
        )
        (directory / "mxweir.toml").write_text(self.setup.toml())
        self.daemon = Daemon("policyd", directory / "mxweir.toml")

    def ask(self, **attributes: str) -> str:
        with PolicyClient(self.addresses.policy) as client:
            return client.ask(**attributes)

    def resident(self) -> int:
        """Bytes of memory."""
        status = Path(f"/proc/{self.daemon.child.pid}/statm").read_text().split()
        return int(status[1]) * 4096


@pytest.fixture
def new_policyd() -> Iterator[Callable[..., Policyd]]:
    started: list[Policyd] = []
    with temporary_directory() as directory:

        def start(**arguments: object) -> Policyd:
            policyd = Policyd(directory, **arguments)  # type: ignore[arg-type]
            policyd.daemon.start()
            started.append(policyd)
            return policyd

        try:
            yield start
        finally:
            for policyd in started:
                policyd.daemon.stop()


@pytest.fixture(scope="module")
def policyd() -> Iterator[Policyd]:
    """The one that clients talk nonsense to."""
    with temporary_directory() as directory:
        policyd = Policyd(directory)
        with policyd.daemon:
            yield policyd


HALF = format_request(USUAL)[:-20]


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100 + b"\n\n",
        format_request(USUAL | {"sender": "a\0b@sender.example"}),
        b"request=smtpd_access_policy\n" + b"".join(b"a%d=b\n" % n for n in range(10_000)) + b"\n",
        b"GET / HTTP/1.1\r\nHost: policy\r\n\r\n\n\n",
        b"request=something_else\n\n",
        b"no attribute\n\n",
        b"\n\n\n",
    ],
    ids=["NULs", "NUL in a value", "10,000 attributes", "HTTP", "another request", "no name", "empty"],
)
def test_nonsense_closes_its_own_connection_and_no_other(policyd: Policyd, data: bytes) -> None:
    with PolicyClient(policyd.addresses.policy) as other, PolicyClient(policyd.addresses.policy) as client:
        assert other.ask(instance="nonsense.1") == "DUNNO"
        with suppress(ConnectionError):  # it is closed before all of that is read
            client.send(data)
        assert client.is_closed()
        assert other.ask(instance="nonsense.1") == "DUNNO"
    assert policyd.daemon.wait_for(event="policy protocol error")


def test_ten_megabytes_without_a_newline_are_refused_and_cost_no_memory(policyd: Policyd) -> None:
    before = policyd.resident()
    with PolicyClient(policyd.addresses.policy) as client, pytest.raises((ConnectionError, TimeoutError)):
        client.send(b"x" * 10_000_000)
    assert policyd.resident() < before + 5_000_000
    assert policyd.ask(instance="after") == "DUNNO"


def test_half_a_request_and_a_closed_connection_harm_nobody(policyd: Policyd) -> None:
    for _ in range(20):
        with PolicyClient(policyd.addresses.policy) as client:
            client.send(HALF)
    assert policyd.ask(instance="after half") == "DUNNO"


def test_a_request_in_single_bytes_is_answered(policyd: Policyd) -> None:
    with PolicyClient(policyd.addresses.policy) as client:
        for byte in format_request(USUAL):
            client.send(bytes([byte]))
        assert client.answer() == "DUNNO"


@pytest.mark.parametrize(
    "sender", [b"\xff\xfe@sender.example", b"a\rb@sender.example", b"\x1b[2J@sender.example"]
)
def test_bytes_that_are_no_text_are_answered_and_forge_no_log_line(policyd: Policyd, sender: bytes) -> None:
    before = len(policyd.daemon.log().splitlines())
    with PolicyClient(policyd.addresses.policy) as client:
        client.send(format_request(USUAL).replace(b"bert@sender.example", sender))
        assert client.answer() == "DUNNO"
    assert wait_until(lambda: len(policyd.daemon.log().splitlines()) > before, 30)
    line = policyd.daemon.log().splitlines()[-1]
    assert line.isprintable()
    assert line.startswith("{")


def test_a_connection_that_is_idle_or_half_way_through_a_request_holds_up_nobody_and_goes_on_later(
    policyd: Policyd,
) -> None:
    with PolicyClient(policyd.addresses.policy) as idle, PolicyClient(policyd.addresses.policy) as half:
        half.send(HALF)
        for number in range(200):
            assert policyd.ask(sender=f"s{number}@sender.example") == "DUNNO"
        half.send(format_request(USUAL)[-20:])
        assert half.answer() == "DUNNO"
        assert idle.ask() == "DUNNO"


def test_a_hundred_connections_at_once_are_served(policyd: Policyd) -> None:
    clients = [PolicyClient(policyd.addresses.policy) for _ in range(100)]
    try:
        for client in clients:
            client.send(format_request(USUAL))
        assert [client.answer() for client in clients] == ["DUNNO"] * 100
    finally:
        for client in clients:
            client.close()


def test_rubbish_in_the_domains_file_is_told_by_its_line_and_the_good_lines_are_kept(
    new_policyd: Callable[..., Policyd],
) -> None:
    policyd = new_policyd(domains="example.org\nnot a domain!!!\n\n# a comment\n-bad-.example\nexample.net\n")
    told = {line["line"] for line in policyd.daemon.records(event="domains file: line skipped")}
    assert told == {2, 5}
    assert policyd.ask(recipient="anna@example.net") == "DUNNO"
    assert policyd.ask(recipient="dave@elsewhere.example").startswith("550")


def test_a_domains_file_that_lost_most_of_its_lines_is_refused_until_somebody_says_that_it_is_meant(
    new_policyd: Callable[..., Policyd],
) -> None:
    policyd = new_policyd(domains="".join(f"d{number}.example\n" for number in range(100)))
    new = policyd.directory / "new"
    new.write_text("d0.example\n")
    new.rename(policyd.domains)  # written in place, it is empty for an instant
    assert "99 of 100" in policyd.daemon.wait_for(event="domains file refused")["detail"]
    assert policyd.ask(recipient="anna@d99.example") == "DUNNO"
    accept = command("domains", policyd.daemon.config_file, "verify", "--accept")
    accepted = subprocess.run(accept, check=True, capture_output=True, text=True, timeout=120)
    assert "1 in the table" in accepted.stdout
    assert wait_until(lambda: policyd.ask(recipient="anna@d99.example").startswith("550"), 30)
    assert policyd.ask(recipient="anna@d0.example") == "DUNNO"


def test_a_domains_file_that_vanishes_changes_nothing(new_policyd: Callable[..., Policyd]) -> None:
    policyd = new_policyd()
    policyd.domains.unlink()
    policyd.daemon.wait_for(event="domains file not there")
    policyd.daemon.stop()
    policyd.daemon.start()
    assert policyd.ask(recipient="anna@example.org") == "DUNNO"
    assert policyd.ask(recipient="dave@elsewhere.example").startswith("550")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of two mebibytes."""
    with temporary_directory() as directory:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0755", "tmpfs", str(directory)]
        done = subprocess.run(mount, check=False, capture_output=True, text=True, timeout=10)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True, timeout=10)


def test_a_full_disk_under_the_state_directory_stops_no_answer_and_is_told(
    small_disk: Path, new_policyd: Callable[..., Policyd]
) -> None:
    policyd = new_policyd(state=small_disk / "state")
    assert policyd.ask(instance="1") == "DUNNO"
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"x" * 4_000_000)
    for number in range(50):
        assert policyd.ask(sender=f"s{number}@sender.example") == "DUNNO"
    assert "No space left" in policyd.daemon.wait_for(event="counters not saved")["detail"]
    policyd.domains.write_text("".join(f"d{number}.example\n" for number in range(20_000)) + "example.org\n")
    policyd.daemon.wait_for(event="domains file not loaded", level="error")
    assert policyd.ask(recipient="anna@example.org", instance="2") == "DUNNO"
    assert policyd.daemon.child.stop(60) == 0
    ballast.unlink()
    policyd.daemon.start()
    assert policyd.ask(recipient="anna@example.org", instance="3") == "DUNNO"


def test_a_counters_file_that_is_cut_in_half_is_put_aside_and_counting_starts_again(
    new_policyd: Callable[..., Policyd],
) -> None:
    policyd = new_policyd()
    for number in range(300):
        policyd.ask(sender=f"s{number}@sender.example", instance=str(number))
    policyd.daemon.stop()
    saved = policyd.state / "limits.state"
    saved.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    policyd.daemon.start()
    assert policyd.daemon.wait_for(event="counters not loaded")
    assert policyd.ask() == "DUNNO"
    assert (policyd.state / "limits.broken").exists()


@pytest.mark.parametrize("keep", [0.5, 0.1, 0.0], ids=["half", "a tenth", "nothing"])
def test_a_domain_table_that_is_cut_off_is_made_anew_from_the_file(
    new_policyd: Callable[..., Policyd], keep: float
) -> None:
    policyd = new_policyd(domains="".join(f"d{number}.example\n" for number in range(5000)))
    policyd.daemon.stop()
    table = policyd.state / "domains.lmdb"
    with table.open("r+b") as file:
        file.truncate(int(table.stat().st_size * keep))
    policyd.daemon.start()
    assert not keep or policyd.daemon.wait_for(event="domain table damaged", level="error")
    for number in (0, 2500, 4999):
        assert policyd.ask(recipient=f"anna@d{number}.example", instance=str(number)) == "DUNNO"
    # What was given by command is lost with the table. Until somebody says that all is there, nobody is
    # refused for good.
    assert policyd.ask(recipient="dave@elsewhere.example").startswith("450" if keep else "550")
