"""The process that keeps Postfix's tables: it sees for itself what changed, and gets over trouble."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mxweir.domains.match import digest
from mxweir.domains.record import FROM_COMMAND, FROM_POSTGRES, Record
from mxweir.events import Event, Notice, Trouble
from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import program
from mxweir_policyd.postfix import kept as kept_module
from mxweir_policyd.postfix.keeper import keep
from mxweir_policyd.postfix.keeping import PostfixMaps
from mxweir_policyd.postfix.kept import KeptTables
from mxweir_policyd.postfix.report import Report, Settings
from mxweir_policyd.postfix.source import Tables
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.replica import Replica

Look = Callable[[], Report | None]


@pytest.fixture
def place() -> Iterator[Path]:
    program("postmap", "postfix")
    with temporary_directory() as directory:
        (directory / "mxweir.toml").write_text(f'state_dir = "{directory}/state"\n')
        yield directory


def settings(place: Path, postgres: bool = False) -> Settings:
    return Settings(str(place / "state"), str(place / "tables"), postgres)


def given(place: Path, *domains: str) -> None:
    with closing(Replica(place / "state")) as replica:
        replica.add([Record(domain) for domain in domains], FROM_COMMAND)


def domains(place: Path, *words: str) -> None:
    """What an operator does, in a process of its own."""
    subprocess.run(command("domains", place / "mxweir.toml", *words), check=True, capture_output=True)


@pytest.fixture
def look(place: Path) -> Look:
    """One look of a keeper; what it told."""
    looks = keep(settings(place))
    return lambda: next(looks)[0]


def test_it_makes_the_tables_follows_a_command_and_says_nothing_when_nothing_changes(
    place: Path, look: Look
) -> None:
    given(place, "a.example", "b.example")
    assert look() == Report(rebuilt=2, rows=2)
    assert look() is None
    domains(place, "add", "c.example", ".d.example")
    assert look() == Report(put=3, rows=5)
    domains(place, "remove", "a.example")
    assert look() == Report(removed=1, rows=4)
    assert look() is None


def test_it_makes_no_table_before_a_domain_is_known(place: Path, look: Look) -> None:
    assert look() == Report()
    assert look() is None
    given(place, "a.example")
    assert look() == Report(rebuilt=2, rows=1)


def test_a_trouble_is_told_once_and_tried_again_until_it_is_over(
    place: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(place, "a.example")
    look()
    with monkeypatch.context() as without:
        without.setattr("mxweir_policyd.postfix.postmap._PATH", str(place))
        domains(place, "add", "b.example")
        assert look() == Report(trouble="postmap is not installed (Debian's package postfix has it)")
        assert look() is None
    assert look() == Report(put=1, rows=2)


def test_nothing_is_taken_out_while_the_table_is_in_doubt(place: Path, look: Look) -> None:
    given(place, "a.example", "b.example")
    look()
    (place / "state" / "domains.unsure").touch()
    domains(place, "remove", "a.example")
    domains(place, "add", "c.example")
    assert look() == Report(put=1, rows=3)
    (place / "state" / "domains.unsure").unlink()
    assert look() == Report(removed=1, rows=2)


def item(domain: str, alive: bool = True) -> tuple[bytes, bytes]:
    return digest(domain), Record(domain, "", False, FROM_POSTGRES, alive).encode()


def test_of_a_replica_what_changed_is_told_by_its_journal_and_everything_where_that_does_not_reach(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.relaydomains.journaling.LENGTH", 5)
    state = place / "state"
    state.mkdir()

    def change(*items: tuple[bytes, bytes]) -> None:
        with closing(Mirror(state)) as mirror:
            mirror.apply(items, 1.0)

    with closing(Mirror(state)) as mirror:
        mirror.begin(("here/1", "3", 0.0))
        mirror.fill(sorted(item(f"d{number}.example") for number in range(20)))
    tables = Tables(state, postgres=True)
    assert not tables.whole()
    assert tables.changed() is None
    tables.close()
    with closing(Mirror(state)) as mirror:
        mirror.update(filled=True)

    tables = Tables(state, postgres=True)
    assert tables.whole()
    assert tables.changed() is None
    assert tables.changed() == []
    maps = PostfixMaps(place / "tables")
    maps.agree(tables)
    assert maps.count() == 20
    tables._reader.close()
    change(item("new.example"), item("d3.example", alive=False))
    assert sorted(tables.changed() or []) == ["d3.example", "new.example"]
    maps.follow(["d3.example", "new.example"], tables)
    assert maps.count() == 20
    tables._reader.close()
    change(*(item(f"more{number}.example") for number in range(9)))
    assert tables.changed() is None
    tables.close()


async def test_a_keeper_that_dies_is_told_and_another_one_takes_over(place: Path) -> None:
    given(place, "a.example")
    events: list[Event] = []
    kept = KeptTables(settings(place), events.append)
    running = asyncio.ensure_future(kept.run())
    try:
        await _until(lambda: kept.agree)
        pid = _keepers(place)[0]
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: any(isinstance(event, Trouble) for event in events) and not kept.agree)
        await _until(lambda: kept.agree)
        kept.renew(None)
        await _until(lambda: not _keepers(place) and not kept.agree)
        assert not kept.wanted
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    troubles = [event for event in events if isinstance(event, Trouble)]
    assert [(trouble.what, trouble.detail) for trouble in troubles] == [
        ("Postfix tables not kept", "its keeper ended with status -9; started again")
    ]
    assert isinstance(events[0], Notice)


async def test_signals_to_the_whole_service_do_not_end_a_keeper_whose_daemon_lives(place: Path) -> None:
    given(place, "a.example")
    events: list[Event] = []
    kept = KeptTables(settings(place), events.append)
    running = asyncio.ensure_future(kept.run())
    try:
        await _until(lambda: kept.agree)
        (pid,) = _keepers(place)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        given(place, "b.example")
        await _until(lambda: kept.last.rows == 2)
        assert _keepers(place) == [pid]
        kept.renew(None)
        await _until(lambda: not _keepers(place) and not kept.agree)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert [event for event in events if isinstance(event, Trouble)] == []


async def test_a_keeper_that_hangs_is_told_and_counts_as_none_until_it_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "_SILENT", 10.0)
    given(place, "a.example")
    events: list[Event] = []
    kept = KeptTables(settings(place), events.append)
    running = asyncio.ensure_future(kept.run())
    try:
        await _until(lambda: kept.agree)
        (pid,) = _keepers(place)
        os.kill(pid, signal.SIGSTOP)
        await _until(lambda: not kept.agree)
        os.kill(pid, signal.SIGCONT)
        await _until(lambda: kept.agree)
        kept.renew(None)
        await _until(lambda: not _keepers(place) and not kept.agree)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    told = [event.detail if isinstance(event, Trouble) else "" for event in events]
    assert told == ["", "its keeper has said nothing for 10 s", ""]


def _keepers(place: Path) -> list[int]:
    """Processes that have a file of this state open, but for this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"postfix.keeper" in (entry / "cmdline").read_bytes() and any(
                opened.is_relative_to(place) for opened in files(entry)
            ):
                found.append(int(entry.name))
    return found


def files(process: Path) -> Iterator[Path]:
    for link in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield link.readlink()


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not true():  # noqa: ASYNC110 - it looks at processes
            await asyncio.sleep(0.02)
