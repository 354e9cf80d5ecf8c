"""Work that can wait is done where nobody else wants the processor, if anything is done there."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mxweir.config.sections import Postgres
from mxweir_policyd.relaydomains import follower
from mxweir_policyd.relaydomains.follower import _Aside, follow
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.report import Following, Report, Settings

NOWHERE = Postgres(dsn="host=127.0.0.1 port=1 dbname=none")


class EnoughError(Exception):
    """The follower has done what the test wants to see."""


def policy() -> int:
    """By which rule the thread that asks has its turns."""
    return os.sched_getscheduler(0)


def test_work_that_can_wait_is_done_with_the_time_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_PROMPT", 60.0)
    ours = policy()  # which a test before may have changed
    assert (_Aside()(policy), policy()) == (os.SCHED_IDLE, ours)


def test_where_there_is_no_such_time_it_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_PROMPT", 0.0)
    monkeypatch.setattr(follower, "_PROBE", 2_000_000)
    assert _Aside()(policy) == policy() != os.SCHED_IDLE


def test_an_error_of_the_work_reaches_whoever_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_PROMPT", 60.0)

    def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        _Aside()(fails)


def until_away(directory: Path, times: int, meanwhile: dict[int, Callable[[], object]]) -> list[Following]:
    """Follow a PostgreSQL that is nowhere until it was told so often; what was told."""
    told: list[Following] = []

    def tell(report: Report | None) -> None:
        assert report is not None
        told.append(report.state)
        if act := meanwhile.get(len(told)):
            act()
        if told.count(Following.AWAY) == times:
            raise EnoughError

    with pytest.raises(EnoughError):
        follow(Settings(str(directory), 0.2, NOWHERE), tell)
    return told


def test_while_postgresql_is_away_the_replica_is_not_opened_anew_for_each_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    class Opened(Mirror):
        def __init__(self, directory: Path, mend: bool = False) -> None:
            opened.append(directory)
            super().__init__(directory, mend)

    monkeypatch.setattr(follower, "Mirror", Opened)
    monkeypatch.setattr(follower, "random", lambda: 0.0)
    assert until_away(tmp_path, 4, {}) == [Following.AWAY] * 4
    assert opened == [tmp_path]


def test_a_replica_that_is_removed_while_postgresql_is_away_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "random", lambda: 0.0)
    path = tmp_path / "postgres.lmdb"
    told = until_away(tmp_path, 3, {2: path.unlink})
    assert told == [Following.AWAY, Following.AWAY, Following.FAILING, Following.AWAY]
    assert path.exists()


def test_a_ctrl_z_does_not_stop_it_with_the_replicas_lock(tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-m", "mxweir_policyd.relaydomains.follower"]
    settings = Settings(str(tmp_path), 0.2, NOWHERE)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(settings.line())
        process.stdin.flush()
        assert Report.of_line(process.stdout.readline()).state is Following.AWAY
        (ignored,) = re.findall(r"SigIgn:\t(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    assert int(ignored, 16) & 1 << signal.SIGTSTP - 1
