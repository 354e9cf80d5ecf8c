"""What of limits in Redis needs none; the rest is in tests/live/redis and tests/policyd/shared."""

from typing import Any, cast

import pytest

from mxweir.config import loads
from mxweir.events import Counted
from mxweir.facts import Folder
from mxweir.ratelimit import shared
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.shared import Shared
from mxweir.redis.offset import Offset
from mxweir.redis.servers import Servers
from mxweir.testing import Recorder, SettableClock, whole_message

FOLDER = Folder()
LIMITS = "".join(
    f'[[limit]]\nname = "{name}"\nkey = ["reply_to", "recipient"]\nrate = "1/hour"\n'
    for name in ("one", "two")
)


class Asked:
    """A Redis that only remembers how much it was asked about at once."""

    clustered, available = False, True

    def __init__(self) -> None:
        self.counters: list[int] = []

    def offset(self, key: object) -> Offset:
        return Offset(SettableClock())

    def eval(self, script: object, keys: Any, args: object, then: object, timeout: float) -> None:
        self.counters.append(len(keys))


def test_a_question_about_very_many_counters_is_this_processs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_ASKED", 6)
    asked, told, clock = Asked(), Recorder(), SettableClock()
    limits = Limits(loads(LIMITS).limit, FOLDER)
    counted = Shared(limits, cast("Servers", asked), "mxweir", clock, told, 0.1)
    outcomes: list[Outcome] = []
    counted.decide([whole_message(3)], outcomes.extend)
    assert asked.counters == [6]
    for _ in range(2):
        counted.decide([whole_message(4)], outcomes.extend)
    assert asked.counters == [6]
    assert [outcome.refusal is None for outcome in outcomes] == [True, False]
    assert told.events == [Counted("process", 1)] * 2
