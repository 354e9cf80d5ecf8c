"""How the daemon starts, and the one line with which it does not."""

import grp
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mxweir import service
from mxweir.endpoint import Unix
from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.place import free_endpoint

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd


def refusal(daemon: "Policyd", status: int = 1) -> str:
    """Start a daemon that is to refuse with that status: the one line for the operator beside its log."""
    done = subprocess.run(
        command("policyd", daemon.config_file), check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == status, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return line


def path_of(endpoint: object) -> Path:
    assert isinstance(endpoint, Unix)
    return Path(endpoint.path)


def test_a_daemon_that_starts_says_so_with_its_addresses(policyd: "Policyd") -> None:
    line = policyd.wait_for(event="started")
    assert line["listen"] == str(policyd.addresses.policy)
    assert line["maps"] == str(policyd.addresses.maps)
    assert line["daemon"] == "policyd"


def test_sockets_get_the_configured_permissions_and_group(own: "Policyd") -> None:
    group = grp.getgrgid(os.getgroups()[0] if os.getgroups() else os.getgid())
    own.configure(socket_mode='"0600"')
    own.config_file.write_text(
        own.config_file.read_text().replace('socket_group = ""', f'socket_group = "{group.gr_name}"')
    )
    own.start()
    for endpoint in (own.addresses.policy, own.addresses.maps):
        status = path_of(endpoint).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_gid == group.gr_gid


def test_a_socket_file_left_behind_by_a_crash_is_replaced(own: "Policyd") -> None:
    own.start()
    own.kill()
    assert path_of(own.addresses.policy).exists()
    own.start()
    assert own.ask() == "DUNNO"


def test_a_missing_state_directory_is_made(own: "Policyd") -> None:
    own.state.rmdir()
    own.start()
    assert own.ask(recipient="x@foreign.example").startswith("550")


def test_an_empty_table_switches_the_relay_check_off_and_says_so(own: "Policyd") -> None:
    own.domains.unlink()
    own.start()
    assert own.ask(recipient="x@foreign.example") == "DUNNO"
    assert own.look_up("relay-domains", "example.org").startswith("TEMP ")
    assert "mxweir domains import" in own.wait_for(event="relay check is off")["detail"]


def test_addresses_may_be_tcp_ports_and_several(own: "Policyd") -> None:
    first, second = free_endpoint(), free_endpoint()
    config = own.config_file.read_text()
    own.config_file.write_text(
        config.replace(f'listen = ["{own.addresses.policy}"]', f'listen = ["{first}", "{second}"]')
    )
    own.start()
    for endpoint in (first, second):
        with socket.create_connection((endpoint.host, endpoint.port), timeout=5) as client:
            client.sendall(b"request=smtpd_access_policy\nprotocol_state=RCPT\n\n")
            assert client.recv(100) == b"action=DUNNO\n\n"


# Refusals


def test_a_second_instance_is_refused_in_one_line_and_harms_nothing(own: "Policyd") -> None:
    own.start()
    for number in range(3):
        own.ask(sender="bert@a.example", instance=str(number))
    config = own.config_file.read_text()
    own.config_file.write_text(config.replace(f'http = "{own.addresses.policyd_http}"', 'http = ""'))
    assert refusal(own) == (
        f"mxweir policyd: cannot listen at {own.addresses.policy}: "
        "another process is serving it; stop that first"
    )
    assert own.ask(sender="bert@a.example", instance="4").startswith("550")
    own.config_file.write_text(config)
    own.stop()
    own.start()
    assert own.ask(sender="bert@a.example", instance="5").startswith("550")


def test_a_second_instance_at_other_addresses_is_refused_for_its_state_directory(own: "Policyd") -> None:
    own.start()
    config = own.config_file.read_text()
    for name in ("policy", "maps"):
        config = config.replace(f"{own.directory}/{name}", f"{own.directory}/other-{name}")
    own.config_file.write_text(config.replace(f'http = "{own.addresses.policyd_http}"', 'http = ""'))
    assert refusal(own) == (
        f"mxweir policyd: cannot listen at unix:{own.state}/policyd.control: "
        "another process is serving it; stop that first"
    )
    assert not (own.directory / "other-policy").exists()
    assert own.ask() == "DUNNO"


@contextmanager
def taken() -> Iterator[str]:
    """The address of a port that somebody listens on."""
    with closing(service.bind(free_endpoint())) as listener:
        yield str(listener.endpoint)


def test_a_port_in_use_is_told_in_one_line(own: "Policyd") -> None:
    with taken() as address:
        config = own.config_file.read_text()
        own.config_file.write_text(config.replace(str(own.addresses.policy), address))
        in_use = f"cannot listen at {address}: Address already in use"
        assert refusal(own) == f"mxweir policyd: {in_use}"
        own.config_file.write_text(config.replace(str(own.addresses.policyd_http), address))
        assert refusal(own) == f"mxweir policyd: policyd.http: {in_use}"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("inet:192.0.2.1:10040", "Cannot assign requested address"),
        ("inet:no.such.host.invalid:10040", "Name or service not known"),
        (
            "unix:/nonexistent/policy",
            "there is no directory /nonexistent; make it, writable by the daemon's user",
        ),
        ("unix:{directory}/domains", "a file that is no socket is in the way"),
    ],
)
def test_an_address_that_cannot_be_had_is_told_in_one_line(own: "Policyd", address: str, why: str) -> None:
    address = address.format(directory=own.directory)
    config = own.config_file.read_text()
    own.config_file.write_text(config.replace(str(own.addresses.policy), address))
    line = refusal(own)
    assert line.startswith(f"mxweir policyd: cannot listen at {address}: ")
    if not address.startswith("inet:no"):  # what a missing name is called depends on the resolver
        assert line.endswith(why)


def test_a_group_that_does_not_exist_is_told_in_one_line(own: "Policyd") -> None:
    config = own.config_file.read_text()
    own.config_file.write_text(config.replace('socket_group = ""', 'socket_group = "no-such-group"'))
    assert refusal(own, status=2) == (
        'mxweir policyd: socket_group = "no-such-group": there is no such group on this host'
    )
    assert not path_of(own.addresses.policy).exists()


def test_a_socket_that_cannot_be_made_right_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("mxweir.service.os.chown", refuse)
    with pytest.raises(service.ServiceError, match="Operation not permitted"):
        service.bind(Unix(str(tmp_path / "policy")), 0o660, grp.getgrgid(os.getgid()).gr_name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", ["{directory}/domains/state", "/proc/mxweir"])
def test_a_state_directory_that_cannot_be_used_is_told_in_one_line(own: "Policyd", state: str) -> None:
    state = state.format(directory=own.directory)
    config = own.config_file.read_text()
    own.config_file.write_text(config.replace(f'state_dir = "{own.state}"', f'state_dir = "{state}"'))
    assert refusal(own).startswith(f"mxweir policyd: {state}/domains.lmdb: cannot be opened: ")


def test_a_broken_configuration_is_refused_with_all_its_mistakes(own: "Policyd") -> None:
    own.config_file.write_text('[policyd]\nworkers = 4\nlisten = "inet:nowhere"\n[limits]\n')
    done = subprocess.run(
        command("policyd", own.config_file), check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.split(": ")[0].rsplit(":", 1)[-1] for line in done.stderr.splitlines()] == ["2", "3", "4"]
    assert "Traceback" not in done.stderr
