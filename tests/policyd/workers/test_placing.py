"""Who gets a connection; the workers are of paper."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.events import Trouble
from mxweir.testing import Recorder
from mxweir_policyd.workers.member import Member
from mxweir_policyd.workers.messages import POLICY
from mxweir_policyd.workers.placing import Placing


@dataclass
class Paper:
    """A worker that takes what it is handed, unless it is `full` or gone."""

    open: int = 0
    serving: bool = True
    silent: int = 0
    handed: int = 0
    full: bool = False
    taken: list[socket.socket] = field(default_factory=list)

    def hand(self, kind: bytes, connection: socket.socket) -> bool:
        if self.full:
            return False
        self.taken.append(connection)
        self.open += 1
        self.handed += 1
        return True


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def placing(*workers: Paper, most: int = 100) -> tuple[Placing, Recorder]:
    recorder = Recorder()
    return Placing(lambda: cast("list[Member]", workers), most, recorder), recorder


@given(st.lists(st.integers(0, 20), min_size=2, max_size=5), st.integers(1, 60))
def test_however_they_begin_connections_go_where_fewest_are(begin: list[int], count: int) -> None:
    workers = [Paper(open=number) for number in begin]
    made, _ = placing(*workers, most=1000)
    with socket.socket(socket.AF_UNIX) as connection:
        for _ in range(count):
            made.place(POLICY, connection)
    grown = [worker.open for worker in workers if worker.taken]
    assert sum(worker.open for worker in workers) == sum(begin) + count
    assert max(grown) - min(worker.open for worker in workers) <= 1


def test_connections_that_are_closed_at_once_are_dealt_out_as_well(connection: socket.socket) -> None:
    """As of a client that makes one for each question."""
    workers = [Paper(), Paper(), Paper()]
    made, _ = placing(*workers)
    for _ in range(9):
        made.place(POLICY, connection)
        for worker in workers:
            worker.open = 0
    assert [len(worker.taken) for worker in workers] == [3, 3, 3]


def test_a_worker_that_says_nothing_gets_none_while_another_speaks(connection: socket.socket) -> None:
    silent, busy = Paper(silent=3), Paper(open=50)
    made, _ = placing(silent, busy)
    made.place(POLICY, connection)
    assert (silent.open, busy.open) == (0, 51)


def test_a_silent_worker_is_better_than_none(connection: socket.socket) -> None:
    silent, starting = Paper(silent=9), Paper(serving=False)
    made, _ = placing(silent, starting)
    made.place(POLICY, connection)
    assert silent.taken == [connection]


def test_one_that_takes_none_now_is_passed_over(connection: socket.socket) -> None:
    full, other = Paper(full=True), Paper(open=7)
    made, _ = placing(full, other)
    made.place(POLICY, connection)
    assert other.taken == [connection]


def test_without_a_worker_connections_wait_and_go_to_the_first_that_serves(connection: socket.socket) -> None:
    worker = Paper(serving=False)
    made, recorder = placing(worker)
    made.place(POLICY, connection)
    made.place_waiting()
    assert worker.taken == []
    worker.serving = True
    made.place_waiting()
    made.place_waiting()
    assert (worker.taken, recorder.events) == ([connection], [])


def test_connections_above_the_bound_are_closed_those_that_wait_included(connection: socket.socket) -> None:
    worker = Paper(open=1)
    worker.full = True
    made, recorder = placing(worker, most=2)
    made.place(POLICY, connection)
    with socket.socket(socket.AF_UNIX) as more:
        made.place(POLICY, more)
        assert more.fileno() == -1
    assert connection.fileno() != -1
    assert recorder.events == [Trouble("too many connections", "max_connections = 2")]


def test_at_a_stop_those_that_wait_are_closed(connection: socket.socket) -> None:
    made, _ = placing()
    made.place(POLICY, connection)
    made.close()
    assert connection.fileno() == -1
