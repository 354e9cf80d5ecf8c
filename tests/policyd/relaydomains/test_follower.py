"""Work that can wait is done where nobody else wants the processor, if anything is done there."""

import os

import pytest

from mxweir_policyd.relaydomains import follower
from mxweir_policyd.relaydomains.follower import _Aside


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
