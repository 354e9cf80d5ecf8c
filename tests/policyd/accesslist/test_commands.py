import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir.config import Config
from mxweir.events import Notice, Trouble
from mxweir.metrics import Metrics
from mxweir.testing import Recorder, SettableClock, question
from mxweir_policyd.accesslist import kept
from mxweir_policyd.accesslist import record as module
from mxweir_policyd.accesslist.commands import Commands
from mxweir_policyd.accesslist.record import Record


class Host:
    """What a daemon without Redis has of it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.path = kept.list_path(state_dir)
        self.clock = SettableClock()
        self.told = Recorder()
        self.flips = 0
        self.begin()

    def begin(self) -> None:
        """As a process that starts."""
        config = Config(state_dir=self.state_dir)
        self.commands = Commands(config, None, self.clock, self.told, Metrics("policyd"))
        self.commands.first_or_last = self._flip
        self.commands.load()

    def _flip(self) -> None:
        self.flips += 1

    async def say(self, action: str, value: str, lasts: float = float("inf")) -> dict[str, object]:
        expires = self.clock() + lasts
        return await self.commands.say(Record("sender_org", value, action, "", expires, "root@mx1").said())

    def blocks(self, value: str) -> bool:
        return self.commands.index.find(question(sender=f"x@{value}"), self.clock()) is not None

    def events(self) -> list[str]:
        return [event.what for event in self.told.events if isinstance(event, Trouble | Notice)]


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.commands.close()


async def test_what_was_said_is_in_the_file_before_it_is_answered(host: Host) -> None:
    answer = await host.say("block", "a.example")
    assert (answer["before"], answer["unsaved"]) == ("", "")
    [record] = kept.read(host.path).records
    assert (record.value, record.version) == ("a.example", answer["version"])
    again = await host.say("allow", "a.example")
    assert again["before"] == record.line()


async def test_words_said_while_the_clock_stands_still_or_runs_back_come_one_after_the_other(
    host: Host,
) -> None:
    first = await host.say("block", "a.example")
    second = await host.say("block", "b.example")
    host.clock.advance(-3600)
    third = await host.say("", "a.example")
    assert first["version"] < second["version"] < third["version"]  # type: ignore[operator]
    assert not host.blocks("a.example")


async def test_withdrawing_what_is_not_there_changes_nothing(host: Host) -> None:
    assert await host.say("", "a.example") == {"nothing": True}
    await host.say("block", "a.example")
    await host.say("", "a.example")
    assert await host.say("", "a.example") == {"nothing": True}


async def test_a_full_list_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxweir_policyd.accesslist.book.MOST", 1)
    await host.say("block", "a.example")
    assert await host.say("block", "b.example") == {"full": True}
    assert not host.blocks("b.example")


@pytest.mark.parametrize("said", ["", "{}", "[1]", 7, None, {"a": 1}, '["sender","","block","",null,""]'])
async def test_what_is_no_word_is_a_value_error(host: Host, said: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        await host.commands.say(said)
    assert not host.path.exists()


async def test_on_a_full_disk_a_word_is_in_force_and_the_answer_says_that_it_is_not_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        answer = await host.say("block", "a.example")
    assert answer["unsaved"] == f"{host.path}: No space left on device"
    assert host.blocks("a.example")
    assert "access list not saved" in host.events()
    host.commands.close()
    assert [record.value for record in kept.read(host.path).records] == ["a.example"]


async def test_words_said_together_are_all_kept(host: Host) -> None:
    await asyncio.gather(*(host.say("block", f"a{number}.example") for number in range(20)))
    assert len(kept.read(host.path).records) == 20


async def test_the_next_process_knows_what_was_said_and_not_what_has_expired_meanwhile(host: Host) -> None:
    await host.say("block", "a.example")
    await host.say("block", "b.example", lasts=60)
    host.commands.close()
    host.clock.advance(60)
    host.begin()
    assert host.blocks("a.example")
    assert not host.blocks("b.example")


async def test_whoever_looks_entries_up_is_told_of_the_first_and_of_the_last(host: Host) -> None:
    await host.say("block", "a.example", lasts=60)
    await host.say("block", "b.example")
    assert host.flips == 1
    await host.say("", "b.example")
    host.clock.advance(60)
    host.commands.tick()
    assert host.flips == 2
    assert host.events()[-1] == "access entries expired"
    host.commands.tick()
    assert host.flips == 2


async def test_a_damaged_file_is_put_aside_and_a_new_list_begun(host: Host) -> None:
    await host.say("block", "a.example")
    host.commands.close()
    host.path.write_bytes(b"rubbish")
    host.begin()
    assert host.events()[-1] == "access list not loaded"
    assert not host.path.exists()
    assert (host.state_dir / "access.broken").read_bytes() == b"rubbish"
    assert not host.blocks("a.example")


async def test_of_two_processes_of_a_host_one_alone_writes_and_the_other_takes_its_place(host: Host) -> None:
    other = Host(host.state_dir)
    await host.say("block", "a.example")
    await other.say("block", "b.example")
    assert [record.value for record in kept.read(host.path).records] == ["a.example"]
    host.commands.close()
    await other.say("block", "c.example")
    assert [record.value for record in kept.read(host.path).records] == ["b.example", "c.example"]
    other.commands.close()


def test_times_in_a_file_are_those_of_the_wall() -> None:
    assert module.Record("sender", "a@b", "", made=5_000_000).until == 5 + module.KEPT_WITHDRAWN
