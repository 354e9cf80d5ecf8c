import json
from typing import Any

import pytest

from mxweir.config import LimitRule
from mxweir.control import Control
from mxweir.events import Trouble
from mxweir.facts import Folder
from mxweir.ratelimit import control
from mxweir.ratelimit.control import LimitsControl
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.rate import parse_rate
from mxweir.testing import Recorder, SettableClock, question

FOLDER = Folder()
RULES = [
    LimitRule(name="sender", key=("sender",), rate=parse_rate("10/hour")),
    LimitRule(name="org", key=("sender_org",), rate=parse_rate("100/hour"), window=True),
]


class Daemon:
    """Limits with their control."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.told = Recorder()
        self.limits = Limits(RULES, FOLDER)
        limits = LimitsControl(lambda: (self.limits, FOLDER), self.clock)
        self._control = Control({"limits": limits.answer}, self.told)

    def charge(self, sender: str, times: int = 1) -> None:
        for _ in range(times):
            self.limits.decide(question(sender=sender), self.clock())

    async def ask(self, **asked: object) -> dict[str, Any]:
        return await self._control.answer(json.dumps({"limits": {"limit": ""} | asked}).encode())


async def test_those_who_use_most_are_found_among_many_and_told_limit_by_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "_AT_ONCE", 7)
    daemon = Daemon()
    for number in range(50):
        daemon.charge(f"s{number}@o{number % 3}.example", 1 + (number == 30) * 3 + (number == 5))
    found = await daemon.ask(top=2)
    assert [(used["limit"], used["key"], used["used"]) for used in found["uses"]] == [
        ("sender", "s30@o0.example", 4),
        ("sender", "s5@o2.example", 2),
        ("org", "o0.example", 20),
        ("org", "o2.example", 17),
    ]


async def test_who_has_run_off_uses_nothing_and_is_not_told() -> None:
    daemon = Daemon()
    daemon.charge("a@x.example")
    daemon.clock.advance(3600)
    daemon.charge("b@x.example")
    found = await daemon.ask(top=9, limit="sender")
    assert [used["key"] for used in found["uses"]] == ["b@x.example"]


async def test_more_than_a_thousand_are_never_told() -> None:
    daemon = Daemon()
    for number in range(1100):
        daemon.charge(f"s@x{number}.example")
    assert len((await daemon.ask(top=5000, limit="sender"))["uses"]) == control.MOST


async def test_showing_charges_nothing_and_resetting_tells_what_was_used() -> None:
    daemon = Daemon()
    daemon.charge("a@x.example", 10)
    for asked in ("show", "show", "reset"):
        [used] = (await daemon.ask(**{asked: "a@x.example"}))["uses"]
        assert (used["used"], used["most"], round(used["wait"])) == (10, 10, 360)
    assert (await daemon.ask(show="a@x.example"))["uses"][0]["used"] == 0
    assert (await daemon.ask(show="x.example"))["uses"][0]["used"] == 10


@pytest.mark.parametrize("question", [{}, {"limit": ""}, [], 7, None, {"limit": "", "top": "many"}, "limit"])
async def test_what_is_no_question_is_answered_with_what_is_wrong(question: object) -> None:
    daemon = Daemon()
    answer = await daemon._control.answer(json.dumps({"limits": question}).encode())
    assert answer["error"].startswith("not a question: ")
    assert daemon.told.events == []


async def test_a_fault_in_a_command_is_an_answer_and_a_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(control, "places_of", fail)
    daemon = Daemon()
    assert await daemon.ask(show="a@x.example") == {"error": "internal error: ZeroDivisionError: odd"}
    assert daemon.told.events == [Trouble("internal error in a command", "ZeroDivisionError: odd", "error")]
