"""Confirmations: what is asked, what is answered, what is remembered."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.domains.match import NOT_OURS, Match, State
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_policyd.relaydomains import confirm
from mxweir_policyd.relaydomains.confirm import Condition, Confirmations, Rules

OURS = Match(State.OURS, Record("new.example", origins=FROM_POSTGRES).encode())


class Desk:
    """Confirmations, with what they answered and counted."""

    def __init__(self, rules: Rules = Rules(), age: float = 0.0, frozen: bool = False) -> None:  # noqa: B008
        self.replica = Condition(age, frozen)
        self.outcomes: Counter[str] = Counter()
        self.answers: list[tuple[str, State]] = []
        self.confirmations = Confirmations(
            rules, lambda: self.replica, lambda what: self.outcomes.update([what])
        )

    def ask(self, domain: str, now: float = 0.0, away: bool = False) -> bool:
        def resume(match: Match) -> None:
            self.answers.append((domain, match.state))

        return self.confirmations.wants(domain, resume, now, now + 0.25, away)


def test_a_domain_that_postgresql_has_is_ours() -> None:
    desk = Desk()
    assert desk.ask("new.example")
    assert desk.answers == []
    desk.confirmations.answered("new.example", OURS, primary=True, now=0.1)
    assert desk.answers == [("new.example", State.OURS)]
    assert desk.outcomes == {"ours": 1}


def test_a_domain_that_postgresql_has_not_is_not_ours_and_not_asked_for_again_for_a_while() -> None:
    desk = Desk(Rules(unknown_for=10.0))
    desk.ask("foreign.example")
    desk.confirmations.answered("foreign.example", NOT_OURS, primary=True, now=1.0)
    assert not desk.ask("foreign.example", 10.9)
    assert desk.ask("foreign.example", 11.0)
    assert desk.answers == [("foreign.example", State.NOT_OURS)] * 2
    assert desk.outcomes == {"unknown": 1, "remembered": 1}


def test_a_change_in_postgresql_ends_what_is_remembered() -> None:
    desk = Desk()
    desk.ask("new.example")
    desk.confirmations.answered("new.example", NOT_OURS, primary=True, now=0.0)
    desk.confirmations.forget()
    assert desk.ask("new.example", 0.1)


def test_with_nothing_to_be_remembered_every_question_is_asked() -> None:
    desk = Desk(Rules(unknown_for=0.0))
    for _ in range(2):
        assert desk.ask("foreign.example")
        desk.confirmations.answered("foreign.example", NOT_OURS, primary=True, now=0.0)


def test_a_domain_is_asked_for_once_however_many_want_to_know() -> None:
    desk = Desk()
    assert [desk.ask("new.example") for _ in range(5)] == [True, False, False, False, False]
    desk.confirmations.answered("new.example", OURS, primary=True, now=0.0)
    assert desk.answers == [("new.example", State.OURS)] * 5
    assert desk.outcomes == {"ours": 1}


def test_a_standby_that_has_not_the_domain_proves_nothing() -> None:
    desk = Desk()
    desk.ask("new.example")
    desk.confirmations.answered("new.example", NOT_OURS, primary=False, now=0.0)
    assert desk.answers == [("new.example", State.FAILED)]
    assert desk.ask("new.example")
    desk.confirmations.answered("new.example", OURS, primary=False, now=0.0)
    assert desk.answers[1:] == [("new.example", State.OURS)]


def test_whoever_waits_too_long_is_answered_that_it_cannot_be_told() -> None:
    desk = Desk()
    desk.ask("a.example", 0.0)
    desk.ask("b.example", 0.1)
    assert desk.confirmations.next_late == 0.25
    desk.confirmations.late(0.25)
    assert desk.answers == [("a.example", State.FAILED)]
    assert desk.confirmations.next_late == 0.35
    assert not desk.confirmations.waits("a.example")
    assert desk.confirmations.waits("b.example")


def test_without_postgresql_nobody_waits() -> None:
    desk = Desk()
    assert not desk.ask("a.example", away=True)
    desk.ask("b.example")
    desk.confirmations.away()
    assert desk.answers == [("a.example", State.FAILED), ("b.example", State.FAILED)]
    assert desk.outcomes == {"away": 2}


def test_those_who_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "MOST_WAITING", 3)
    desk = Desk()
    assert [desk.ask(f"d{number}.example") for number in range(5)] == [True, True, True, False, False]
    assert [state for _, state in desk.answers] == [State.FAILED] * 2
    assert desk.outcomes == {"busy": 2}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "_MOST_REMEMBERED", 10)
    desk = Desk()
    for number in range(100):
        desk.ask(f"d{number}.example")
        desk.confirmations.answered(f"d{number}.example", NOT_OURS, primary=True, now=0.0)
        assert len(desk.confirmations._unknown) <= 10


@pytest.mark.parametrize(
    ("reject", "age", "expected"),
    [
        (False, 0.0, State.FAILED),
        (True, 0.0, State.NOT_OURS),
        (True, 99.9, State.NOT_OURS),
        (True, 100.0, State.FAILED),
    ],
)
def test_what_cannot_be_confirmed_is_deferred_or_by_the_setting_refused_while_the_replica_is_young(
    reject: bool, age: float, expected: State
) -> None:
    desk = Desk(Rules(reject=reject, max_age=100.0), age)
    desk.ask("a.example", away=True)
    desk.ask("b.example")
    desk.confirmations.late(1.0)
    assert [state for _, state in desk.answers] == [expected] * 2


def test_a_domain_that_a_frozen_replica_lacks_is_neither_taken_nor_refused_for_good() -> None:
    desk = Desk(frozen=True)
    desk.ask("new.example")
    desk.confirmations.answered("new.example", OURS, primary=True, now=0.0)
    assert desk.answers == [("new.example", State.FAILED)]
    desk.ask("foreign.example")
    desk.confirmations.answered("foreign.example", NOT_OURS, primary=True, now=0.0)
    assert desk.answers[1:] == [("foreign.example", State.NOT_OURS)]


acts = st.lists(
    st.tuples(st.sampled_from(["ask", "away", "ours", "not", "late"]), st.integers(0, 3)), max_size=40
)


@given(acts)
def test_whoever_asks_is_answered_exactly_once(steps: list[tuple[str, int]]) -> None:
    desk, asked, now = Desk(), 0, 0.0
    for what, number in steps:
        domain, now = f"d{number}.example", now + 0.1
        if what in ("ask", "away"):
            asked += 1
            desk.ask(domain, now, away=what == "away")
        elif what == "late":
            desk.confirmations.late(now)
        elif desk.confirmations.waits(domain):
            match = OURS if what == "ours" else NOT_OURS
            desk.confirmations.answered(domain, match, primary=True, now=now)
    desk.confirmations.away()
    assert len(desk.answers) == asked
