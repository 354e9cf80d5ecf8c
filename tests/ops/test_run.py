import argparse
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from mxweir.config import ConfigError
from mxweir_ops.commands import run as command


class Supervisor:
    """Remembers what it should run."""

    ran: Mapping[str, Sequence[str]] = {}
    drain = 0.0

    def __init__(self, commands: Mapping[str, Sequence[str]], drain: float, tell: object):
        Supervisor.ran, Supervisor.drain = commands, drain

    def run(self, tick: Callable[[], None]) -> int:
        tick()
        return 0


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(command, "Supervisor", Supervisor)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    path = tmp_path / "mxweir.toml"
    path.write_text('[policyd]\ndrain = "7s"\n[milter]\ndrain = "3s"\n')
    return path


def run(config: Path) -> int:
    return command.run(argparse.Namespace(config=config, development=None))


def test_both_daemons_run_on_the_same_configuration(config: Path) -> None:
    assert run(config) == 0
    assert list(Supervisor.ran) == ["policyd", "milter"]
    for line in Supervisor.ran.values():
        assert line[-3:] == ["--config", str(config), "--end-with-stdin"]


def test_a_child_may_take_the_longer_drain_time_and_a_little_more(config: Path) -> None:
    run(config)
    assert 7 < Supervisor.drain < 20


def test_mistakes_in_the_configuration_are_reported_before_anything_is_started(config: Path) -> None:
    config.write_text("[policyd]\ndrain = 7\nlisten = 1\n")
    Supervisor.ran = {}
    with pytest.raises(ConfigError) as error:
        run(config)
    assert len(error.value.problems) == 2
    assert Supervisor.ran == {}
