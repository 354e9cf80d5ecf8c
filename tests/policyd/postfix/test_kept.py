"""When the next keeper of Postfix's tables is started; a real one: tests/live/test_postfix_keeper.py."""

import asyncio

import pytest

from mxweir.backoff import Backoff
from mxweir_policyd.postfix import kept
from mxweir_policyd.postfix.report import Settings


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
