"""Answers that are known later: in the order of the questions, each exactly once."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_policyd.deferred import Answers, Debts, Owed


class Backend:
    """Holds what it was asked until told to answer."""

    def __init__(self) -> None:
        self.asked: list[Callable[[str], None]] = []

    def ask(self, settle: Callable[[str], None]) -> None:
        self.asked.append(settle)


def test_what_is_said_at_once_is_no_debt() -> None:
    debts = Debts()
    assert debts.owe(lambda settle: settle("now"), str.encode) == b"now"
    assert debts.open == 0


def test_an_answer_that_is_owed_is_written_when_it_is_known() -> None:
    debts, backend, written = Debts(), Backend(), list[bytes]()
    answers = Answers(written.append)
    answers.give(debts.owe(backend.ask, str.encode))
    assert (written, debts.open, len(answers)) == ([], 1, 1)
    backend.asked[0]("later")
    assert (written, debts.open, len(answers)) == ([b"later"], 0, 0)


def test_a_debt_whose_answer_cannot_be_made_is_none_any_more() -> None:
    debts, backend = Debts(), Backend()
    debts.owe(backend.ask, lambda _: bytes(-1))
    with pytest.raises(ValueError, match="negative"):
        backend.asked[0]("later")
    assert debts.open == 0


def test_answers_behind_one_that_is_owed_wait_for_it() -> None:
    debts, backend, written = Debts(), Backend(), list[bytes]()
    answers = Answers(written.append)
    answers.give(b"1")
    answers.give(debts.owe(backend.ask, str.encode))
    answers.give(b"3")
    answers.give(debts.owe(backend.ask, str.encode))
    backend.asked[1]("4")
    assert written == [b"1"]
    backend.asked[0]("2")
    assert written == [b"1", b"2", b"3", b"4"]


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 2**32))
def test_in_whatever_order_a_backend_answers_a_connection_gets_its_answers_in_order(
    owed: list[bool], seed: int
) -> None:
    debts, written = Debts(), list[bytes]()
    answers = Answers(written.append)
    held: list[tuple[Callable[[str], None], int]] = []
    source = random.Random(seed)

    def some_are_known() -> None:
        source.shuffle(held)
        while held and source.random() < 0.4:
            settle, number = held.pop()
            settle(str(number))

    for number, later in enumerate(owed):
        answer: bytes | Owed = str(number).encode()
        if later:
            answer = debts.owe(lambda settle, n=number: held.append((settle, n)), str.encode)  # type: ignore[misc]
        answers.give(answer)
        some_are_known()
    for settle, number in held:
        settle(str(number))
    assert written == [str(number).encode() for number in range(len(owed))]
    assert (debts.open, len(answers)) == (0, 0)
