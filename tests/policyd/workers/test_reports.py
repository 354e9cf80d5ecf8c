"""What a worker has the parent tell, and that it never waits for it."""

import asyncio
import os
import pickle

from mxweir.events import Trouble, notice, tell_all
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir_policyd.workers.messages import Closed, Report, Taken, Told, received
from mxweir_policyd.workers.reports import Reports, Tally, Telling


class Kept(Reports):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.listens = True

    def send(self, report: Report) -> bool:
        if self.listens:
            self.reports.append(report)
        return self.listens


def test_what_happened_is_told_at_once_and_a_trouble_that_goes_on_once_a_second() -> None:
    reports = Kept()
    telling = Telling(reports)
    tell = tell_all(telling.handlers())
    tell(notice("domains can be confirmed again"))
    for number in range(5):
        tell(Trouble("policy protocol error", f"number {number}"))
    tell(Trouble("map protocol error", "another"))
    telling.tick()
    telling.tick()
    tell(Trouble("policy protocol error", "later"))
    assert reports.reports == [
        Told(notice("domains can be confirmed again")),
        Told(Trouble("policy protocol error", "number 0")),
        Told(Trouble("map protocol error", "another")),
        Told(Trouble("policy protocol error", "number 4", times=4)),
        Told(Trouble("policy protocol error", "later")),
    ]


def test_what_a_worker_counts_itself_is_not_told_to_the_parent_who_would_count_it_again() -> None:
    counted = PolicyMetrics(Metrics("policyd")).handlers().keys()
    assert counted & Telling(Kept()).handlers().keys() == {Trouble}  # which only the parent counts


async def test_a_parent_that_does_not_listen_is_not_waited_for_and_takes_no_memory() -> None:
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    reports = Reports()
    await loop.connect_write_pipe(lambda: reports, os.fdopen(writer, "wb"))
    big = Told(Trouble("x", "x" * 100_000))
    sent = sum(reports.send(big) for _ in range(100))
    assert 5 < sent < 20
    stream = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb"))
    for _ in range(sent):
        assert await received(stream) == big
    assert reports.send(Closed(1))
    await reports.end()
    assert await received(stream) == Closed(1)
    assert await received(stream) is None


def test_connections_that_are_taken_while_the_parent_does_not_listen_are_told_later() -> None:
    reports = Kept()
    taken = Tally(reports, Taken)
    reports.listens = False
    taken.count += 2
    taken.report()
    reports.listens = True
    taken.count += 1
    taken.report()
    taken.report()
    assert reports.reports == [Taken(3)]


async def test_half_a_message_is_the_end() -> None:
    stream = asyncio.StreamReader()
    data = pickle.dumps(Closed(1))
    stream.feed_data(len(data).to_bytes(4) + data[:-1])
    stream.feed_eof()
    assert await received(stream) is None
