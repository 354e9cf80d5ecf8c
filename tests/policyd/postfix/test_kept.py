"""When the next keeper of Postfix's tables is started; a real one: tests/live/test_postfix_keeper.py."""

import asyncio

import pytest

from mxweir.backoff import Backoff
from mxweir_policyd.postfix import kept
from mxweir_policyd.postfix.report import BEAT, Settings


async def test_the_end_of_a_keeper_that_lived_long_is_the_first_failure_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, lives, failures = 0.0, [1.0, 1.0, 100.0, 1.0], list[int]()

    async def live(_: Settings) -> int:
        nonlocal now
        if not lives:
            raise asyncio.CancelledError
        now += lives.pop(0)
        return 1

    def failed(backoff: Backoff, _: float) -> float:
        failures.append(backoff.failures)
        backoff.failures += 1
        return 0.0

    monkeypatch.setattr(kept, "monotonic", lambda: now)
    monkeypatch.setattr(Backoff, "failed", failed)
    tables = kept.KeptTables(Settings("state", "postfix", False), lambda _: None)
    monkeypatch.setattr(tables, "_live", live)
    with pytest.raises(asyncio.CancelledError):
        await tables.run()
    assert failures == [0, 1, 0, 1]


@pytest.mark.parametrize("turns", range(5))
async def test_a_stop_is_heard_also_when_the_keeper_says_something_that_moment(turns: int) -> None:
    settings = Settings("state", "postfix", False)
    tables = kept.KeptTables(settings, lambda _: None)
    said = asyncio.StreamReader()
    listening = asyncio.create_task(tables._listen(said, settings))
    await asyncio.sleep(0.01)
    said.feed_data(BEAT)
    for _ in range(turns):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.wait([listening], timeout=5)
    assert listening.cancelled()
