"""`mxweir policyd` and `mxweir milter`, as far as the command line goes."""

import argparse
import subprocess
from pathlib import Path

import pytest

from mxweir.service import ServiceError, SettingError
from mxweir_ops.cli import main
from mxweir_ops.commands import daemons
from mxweir_ops.lab.daemons import Addresses, Setup, command


@pytest.mark.parametrize("verb", ["policyd", "milter"])
def test_each_daemon_takes_its_configuration(verb: str) -> None:
    parser = argparse.ArgumentParser()
    daemons.add_parser(parser.add_subparsers())
    args = parser.parse_args([verb, "--config", "/etc/other.toml"])
    assert args.config == Path("/etc/other.toml")
    assert args.run is getattr(daemons, f"run_{verb}")


@pytest.mark.parametrize("verb", ["policyd", "milter"])
@pytest.mark.parametrize(
    ("error", "told", "status"),
    [
        (
            ServiceError("cannot listen at inet:127.0.0.1:1: in use"),
            "cannot listen at inet:127.0.0.1:1: in use",
            1,
        ),
        (SettingError('socket_group = "x": there is none'), 'socket_group = "x": there is none', 2),
        (
            PermissionError(13, "Permission denied", "/state/limits.state"),
            "/state/limits.state: Permission denied",
            1,
        ),
    ],
)
def test_the_exit_status_says_whether_it_may_help_to_start_again(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    verb: str,
    error: Exception,
    told: str,
    status: int,
) -> None:
    def fail(*_: object) -> None:
        raise error

    name = {"policyd": "PolicyDaemon", "milter": "MilterDaemon"}[verb]
    monkeypatch.setattr(f"mxweir_{verb}.app.{name}", fail)
    config = tmp_path / "mxweir.toml"
    config.touch()
    assert main([verb, "--config", str(config)]) == status
    assert capsys.readouterr().err == f"mxweir {verb}: {told}\n"


@pytest.mark.parametrize("verb", ["policyd", "milter"])
def test_a_daemon_that_is_to_end_with_stdin_stops_cleanly_when_whoever_has_it_open_is_gone(
    verb: str, tmp_path: Path
) -> None:
    addresses = Addresses.in_directory(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "domains").write_text("example.org\n")
    setup = Setup(addresses=addresses, state_dir=tmp_path / "state", domains_file=tmp_path / "domains")
    config = tmp_path / "mxweir.toml"
    config.write_text(setup.toml())
    argv = [*command(verb, config), daemons.END_WITH_STDIN]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        assert daemon.stdin is not None
        try:
            assert any("event=started" in line for line in iter(daemon.stderr.readline, ""))
            daemon.stdin.close()
            assert daemon.wait(60) == 0
        finally:
            daemon.kill()


@pytest.mark.parametrize("verb", ["policyd", "milter"])
def test_a_daemon_with_a_mistake_in_its_configuration_ends_with_status_2(verb: str, tmp_path: Path) -> None:
    config = tmp_path / "mxweir.toml"
    config.write_text("wrong = 1\n")
    assert main([verb, "--config", str(config)]) == 2
