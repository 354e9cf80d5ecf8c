"""`mxweir policyd` and `mxweir milter`, as far as the command line goes."""

import argparse
from pathlib import Path

import pytest

from mxweir.service import ServiceError, SettingError
from mxweir_ops.cli import main
from mxweir_ops.commands import daemons


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
def test_a_daemon_with_a_mistake_in_its_configuration_ends_with_status_2(verb: str, tmp_path: Path) -> None:
    config = tmp_path / "mxweir.toml"
    config.write_text("wrong = 1\n")
    assert main([verb, "--config", str(config)]) == 2
