import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mxweir.config import Config, loads
from mxweir.control import ask
from mxweir.events import Notice, Trouble
from mxweir.facts import Folder
from mxweir.testing import Recorder, SettableClock
from mxweir_milter.counting import Counting, asking_of, snapshot_path
from mxweir_milter.facts import Client
from mxweir_milter.limits import Question
from mxweir_milter.verdict import Failed, Reason

FOLDER = Folder()
TEXT = """
[[limit]]
name = "from"
key = "from"
rate = "2/day"
window = true

[[limit]]
name = "sender"
key = "sender"
rate = "1/day"
"""


class Setting:
    """A counting with its clock, and what it told."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = SettableClock()
        self.told = Recorder()
        self.counting = self.new()

    def new(self) -> Counting:
        return Counting(self.config, asking_of(self.config, FOLDER), self.clock, self.told)

    def question(self, author: str = "a@x.example", instead: Failed | None = None) -> Question:
        asking = asking_of(loads(TEXT), FOLDER)
        assert asking is not None
        gathered = asking.begin()
        gathered.rcpt("b@example.org")
        gathered.header(b"From", author.encode())
        return Question(gathered.facts(Client(), "s@y.example", "", "", 1), instead)

    def start(self) -> None:
        """Start, and stop again."""

        async def started() -> None:
            await self.counting.start()
            self.counting.close()

        asyncio.run(started())

    def take(self, config: Config) -> None:
        """Reload, as the daemon does in its loop."""

        async def taken() -> None:
            self.counting.take(config, asking_of(config, FOLDER))
            await asyncio.sleep(0)
            self.counting.close()

        asyncio.run(taken())

    def ask(
        self, *, author: str = "a@x.example", instead: Failed | None = None
    ) -> tuple[Failed | None, bool]:
        question = self.question(author, instead)
        said = asyncio.run(self.counting.ask(question))
        return said, question.outcome is not None and question.outcome.refusal is not None


@pytest.fixture
def setting(tmp_path):
    return Setting(replace(loads(TEXT), state_dir=tmp_path))


def test_a_message_is_scanned_until_a_limit_refuses_it(setting):
    assert [setting.ask() for _ in range(2)] == [(None, False)] * 2
    said, refused = setting.ask()
    assert refused
    assert isinstance(said, Failed)
    assert setting.ask(author="b@x.example") == (None, False)


def test_a_message_that_is_not_to_be_scanned_is_counted_all_the_same(setting):
    instead = Failed(Reason.TOO_LARGE)
    assert [setting.ask(instead=instead) for _ in range(2)] == [(instead, False)] * 2
    assert setting.ask(instead=instead)[1]


def test_only_limits_by_content_are_the_milters(setting):
    assert [name for (name,), _ in setting.counting.sizes()] == ["from"]
    assert asking_of(loads(TEXT.split("\n\n")[1]), FOLDER) is None


def test_without_such_limits_nothing_is_counted_saved_or_loaded(tmp_path):
    setting = Setting(replace(loads(""), state_dir=tmp_path))
    setting.start()
    setting.counting.tick()
    assert list(setting.counting.sizes()) == []
    assert list(tmp_path.iterdir()) == setting.told.events == []


def test_counters_go_on_in_the_next_process(setting):
    setting.ask()
    setting.counting.close()
    setting.counting = setting.new()
    setting.start()
    assert setting.told.events == [Notice("counters loaded", {"count": 1})]
    assert [setting.ask()[1] for _ in range(2)] == [False, True]


def test_a_damaged_file_is_put_aside_and_told(setting, tmp_path):
    path = snapshot_path(tmp_path)
    path.write_text("nonsense")
    setting.start()
    [told] = setting.told.events
    assert isinstance(told, Trouble)
    assert told.what == "counters not loaded"
    assert (tmp_path / "content-limits.broken").read_text() == "nonsense"


def test_a_disk_that_takes_nothing_is_told_and_costs_nothing(setting, tmp_path):
    setting.config = replace(setting.config, state_dir=tmp_path / "not there")
    setting.counting = setting.new()
    setting.ask()
    setting.counting.close()
    assert [event.what for event in setting.told.events] == ["counters not saved"]


def test_a_new_configuration_goes_on_with_what_was_counted(setting):
    setting.ask()
    config = replace(loads(TEXT.replace("2/day", "3/day")), state_dir=setting.config.state_dir)
    setting.take(config)
    assert [setting.ask()[1] for _ in range(3)] == [False, False, True]
    setting.take(replace(loads(""), state_dir=setting.config.state_dir))
    assert setting.ask() == (None, False)


async def test_commands_are_heard_from_when_there_are_limits_by_content(tmp_path):
    setting = Setting(replace(loads(""), state_dir=tmp_path))
    await setting.counting.start()

    async def asked() -> dict[str, Any] | None:
        question = {"limits": {"limit": "", "show": "a@x.example"}}
        return await asyncio.to_thread(ask, tmp_path, "milter", question)

    assert await asked() is None
    config = replace(loads(TEXT), state_dir=tmp_path)
    setting.counting.take(config, asking_of(config, FOLDER))
    await setting.counting.ask(setting.question())
    async with asyncio.timeout(20):
        while (said := await asked()) is None:  # noqa: ASYNC110 - another thread asks
            await asyncio.sleep(0)
    assert [(use["limit"], use["used"]) for use in said["uses"]] == [("from", 1)]
    setting.counting.take(replace(loads(""), state_dir=tmp_path), None)
    assert await asked() == {"uses": [], "passed_over": []}
    setting.counting.close()
    assert await asked() is None


async def test_a_state_directory_that_is_not_there_costs_only_the_commands(setting, tmp_path):
    setting.config = replace(setting.config, state_dir=tmp_path / "not there")
    setting.counting = setting.new()
    await setting.counting.start()
    assert [event.what for event in setting.told.events] == ["commands are not heard"]
    assert await setting.counting.ask(setting.question()) is None
    setting.counting.close()


def test_a_fault_of_ours_lets_the_message_pass_and_is_told(setting):
    question = setting.question()
    question.facts = None
    assert asyncio.run(setting.counting.ask(question)) is None
    assert [event.what for event in setting.told.events] == ["limits not asked"]


def test_the_counters_are_saved_again_and_again(setting, tmp_path):
    async def saved() -> None:
        saving = asyncio.create_task(setting.counting.kept.save_often(0.0))
        async with asyncio.timeout(20):
            while not snapshot_path(tmp_path).exists():  # noqa: ASYNC110 - a file is waited for
                await asyncio.sleep(0)
        saving.cancel()

    setting.ask()
    asyncio.run(saved())
