"""The follower's process is kept: one a host, replaced when it ends or hangs; what it says is told once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from mxweir.config.sections import Postgres
from mxweir.events import Event, Notice, Trouble
from mxweir.testing import Recorder
from mxweir_policyd.relaydomains import keeper
from mxweir_policyd.relaydomains.keeper import Keeper, take_lock
from mxweir_policyd.relaydomains.report import Following, Report, Settings

NOWHERE = Postgres(dsn="host=127.0.0.1 port=1 dbname=none")


def made(directory: Path, changed: Callable[[], None] = lambda: None) -> tuple[Keeper, Recorder]:
    recorder = Recorder()
    return Keeper(Settings(str(directory), 0.2, NOWHERE), recorder, changed), recorder


def whats(events: list[Event]) -> list[str]:
    return [event.what for event in events if isinstance(event, Trouble | Notice)]


async def until(true: Callable[[], bool]) -> None:
    """Looked at in the loop: between two looks of another thread, a follower may come or go."""
    async with asyncio.timeout(60.0):
        while not true():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeper]:
    kept, _ = made(tmp_path)
    task = asyncio.ensure_future(kept.run())
    await until(lambda: kept.last.state is Following.AWAY)
    yield kept
    await ended(task)


async def ended(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def pid_of(kept: Keeper) -> int:
    assert kept._process is not None
    return kept._process.pid


async def test_of_two_keepers_of_a_host_one_has_a_follower_and_the_other_takes_over(
    tmp_path: Path, kept: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_WAIT", 0.05)
    second, _ = made(tmp_path)
    task = asyncio.ensure_future(second.run())
    await asyncio.sleep(0.3)
    assert second._process is None
    killed = pid_of(kept)
    os.kill(killed, signal.SIGKILL)

    def followers() -> list[int]:
        processes = (keeper._process for keeper in (kept, second))
        return [process.pid for process in processes if process is not None and process.pid != killed]

    await until(lambda: bool(followers()))
    assert len(followers()) == 1
    await ended(task)


async def test_a_follower_that_is_killed_is_replaced(kept: Keeper) -> None:
    first = pid_of(kept)
    os.kill(first, signal.SIGKILL)
    await until(lambda: kept._process is not None and kept._process.pid != first)


async def test_a_follower_that_hangs_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_SILENT", -29.0)  # with query_timeout = "30s", one second of silence
    kept, recorder = made(tmp_path)
    task = asyncio.ensure_future(kept.run())
    await until(lambda: kept._process is not None)
    first = pid_of(kept)
    os.kill(first, signal.SIGSTOP)
    await until(lambda: kept._process is not None and kept._process.pid != first)
    assert "follower ended" in whats(recorder.events)
    await ended(task)


async def test_other_settings_start_another_follower_at_once_and_it_is_no_trouble(tmp_path: Path) -> None:
    kept, recorder = made(tmp_path)
    task = asyncio.ensure_future(kept.run())
    await until(lambda: kept.last.state is Following.AWAY)
    first = pid_of(kept)
    kept.renew(Settings(str(tmp_path), 0.5, NOWHERE))
    await until(lambda: kept._process is not None and kept._process.pid != first)
    assert "follower ended" not in whats(recorder.events)
    await ended(task)


@pytest.mark.parametrize("turns", range(5))
async def test_a_stop_is_heard_also_when_the_follower_says_something_that_moment(
    tmp_path: Path, turns: int
) -> None:
    kept, _ = made(tmp_path)
    said = asyncio.StreamReader()
    listening = asyncio.create_task(kept._listen(said))
    await asyncio.sleep(0.01)
    said.feed_data(Report(Following.FOLLOWING, changed=1).line().encode())
    for _ in range(turns):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.wait([listening], timeout=5)
    assert listening.cancelled()


async def test_the_password_is_in_no_argument_of_the_process(kept: Keeper) -> None:
    line = await asyncio.to_thread(Path(f"/proc/{pid_of(kept)}/cmdline").read_bytes)
    assert b"follower" in line
    assert b"dbname" not in line


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    assert take_lock(tmp_path) is None
    os.close(lock)
    again = take_lock(tmp_path)
    assert again is not None
    os.close(again)


async def test_what_the_follower_is_at_is_told_once_however_often_it_says_so(tmp_path: Path) -> None:
    changes: list[None] = []
    kept, recorder = made(tmp_path, lambda: changes.append(None))
    away = Report(Following.AWAY, "away", "no answer")
    follows = Report(Following.FOLLOWING)
    for report in (away, away, away, follows, follows, away):
        kept._take(report)
    expected = ["PostgreSQL cannot be asked", "relay domains follow PostgreSQL", "PostgreSQL cannot be asked"]
    assert whats(recorder.events) == expected
    assert len(changes) == 3


@pytest.mark.parametrize("state", [Following.FILLING, Following.FROZEN, Following.FAILING])
async def test_where_a_change_does_not_come_into_the_replica_each_report_may_be_of_one(
    tmp_path: Path, state: Following
) -> None:
    changes: list[None] = []
    kept, _ = made(tmp_path, lambda: changes.append(None))
    for _ in range(3):
        kept._take(Report(state))
    assert len(changes) == 3


async def test_changes_are_told_and_counted_and_what_is_held_is_told_when_it_grows(tmp_path: Path) -> None:
    kept, recorder = made(tmp_path)
    kept._take(Report(Following.FOLLOWING, changed=3, lost=1, lag=0.25))
    kept._take(Report(Following.FOLLOWING, held=7))
    kept._take(Report(Following.COMPARING, held=7))
    kept._take(Report(Following.FOLLOWING, held=8))
    assert kept.lag == 0.25
    assert whats(recorder.events) == [
        "relay domains follow PostgreSQL",
        "relay domains changed",
        "relay domains refused to shrink",
        "relay domains follow PostgreSQL",
        "relay domains refused to shrink",
    ]


def test_settings_and_reports_go_through_a_pipe_as_lines() -> None:
    settings = Settings("/var/lib/mxweir", 0.2, Postgres(dsn="dbname=x password='a\nb'"))
    assert settings.line().count(b"\n") == 1
    assert Settings.of_line(settings.line()) == settings
    report = Report(Following.FILLING, share=0.5, detail="a\nb")
    assert report.line().count("\n") == 1
    assert Report.of_line(report.line().encode()) == report


async def test_a_first_fill_is_told_at_each_tenth(tmp_path: Path) -> None:
    kept, recorder = made(tmp_path)
    for step in range(101):
        kept._take(Report(Following.FILLING, share=step / 100))
    kept._take(Report(Following.FOLLOWING))
    told = [event.fields["done"] for event in recorder.events if isinstance(event, Notice) and event.fields]
    assert told == ["0%", *(f"{tenth}0%" for tenth in range(1, 11))]


def test_where_no_daemon_has_run_yet_the_lock_is_free(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / "new" / "state")
    assert lock is not None
    assert take_lock(tmp_path / "new" / "state") is None
    os.close(lock)


def test_a_lock_that_cannot_be_had_is_not_taken_for_one_that_another_has(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    with pytest.raises(OSError, match="state"):
        take_lock(tmp_path / "state")


async def test_a_follower_that_cannot_have_its_lock_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    kept, recorder = made(tmp_path / "state")
    running = asyncio.create_task(kept.run())
    await asyncio.sleep(0)
    running.cancel()
    assert "follower not started" in whats(recorder.events)
