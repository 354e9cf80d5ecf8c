import asyncio
import time
from typing import Any, cast

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.clock import Clock
from mxweir.redis import wire
from mxweir.redis.call import Call
from mxweir.redis.errors import RedisError
from mxweir.redis.wire import MOST_CALLS, Link
from mxweir.testing import SettableClock, timeless

REPLIES = b"+OK\r\n:7\r\n$3\r\n\r\n\xff\r\n$-1\r\n*2\r\n$1\r\na\r\n:1\r\n-ERR no\r\n"
READ = [b"OK", 7, b"\r\n\xff", None, [b"a", 1], "ERR no"]


class Paper:
    """A transport on which nothing goes anywhere."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ended = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.ended += 1

    def set_write_buffer_limits(self, high: int) -> None:
        pass


class Line:
    """A link on paper, and what its calls were answered."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.paper = Paper()
        self.clock = clock
        self.link = Link(clock)
        self.link.connection_made(cast(asyncio.BaseTransport, self.paper))
        self.answers: list[tuple[int, Any]] = []

    def call(self, number: int, timeout: float = 10.0) -> None:
        def then(reply: object) -> None:
            self.answers.append((number, str(reply) if isinstance(reply, hiredis.ReplyError) else reply))

        self.link.send(Call(("PING", number), then, self.clock(), timeout))

    def kinds(self) -> list[tuple[int, str]]:
        return [(number, reply.kind) for number, reply in self.answers if isinstance(reply, RedisError)]

    async def until(self, answers: int) -> None:
        async with asyncio.timeout(10):
            while len(self.answers) < answers:  # noqa: ASYNC110 - the loop's timer is what is tested
                await asyncio.sleep(0.005)


async def fed(chunks: list[bytes]) -> list[Any]:
    line = Line()
    for number in range(len(READ)):
        line.call(number)
    for chunk in chunks:
        line.link.data_received(chunk)
    assert [number for number, _ in line.answers] == list(range(len(READ)))
    line.link.close("the end")
    return [reply for _, reply in line.answers]


async def test_replies_are_those_of_their_calls_whole_or_byte_by_byte():
    assert await fed([REPLIES]) == READ
    assert await fed([REPLIES[i : i + 1] for i in range(len(REPLIES))]) == READ


@given(st.lists(st.integers(0, len(REPLIES)), max_size=8).map(sorted))
def test_replies_are_those_of_their_calls_however_they_are_cut(cuts):
    ends = [*cuts, len(REPLIES)]
    chunks = [REPLIES[a:b] for a, b in zip([0, *cuts], ends, strict=True)]
    assert asyncio.run(fed(chunks)) == READ


async def test_a_call_is_sent_as_redis_wants_it():
    line = Line()
    line.call(12)
    assert line.paper.written == [b"*2\r\n$4\r\nPING\r\n$2\r\n12\r\n"]
    line.link.close("the end")


@timeless
async def test_a_call_whose_time_is_over_is_answered_and_its_late_reply_is_nobodys():
    line = Line(asyncio.get_running_loop().time)
    line.call(1, 0.02)
    line.call(2)
    await line.until(1)
    assert line.kinds() == [(1, "timeout")]
    line.link.data_received(b":1\r\n:2\r\n")
    assert line.answers[1:] == [(2, 2)]
    line.link.close("the end")


@timeless
async def test_a_shorter_time_behind_a_longer_one_is_kept():
    line = Line(asyncio.get_running_loop().time)
    line.call(1, 5.0)
    line.call(2, 0.02)
    await line.until(1)
    assert line.kinds() == [(2, "timeout")]
    line.link.data_received(b":1\r\n:2\r\n")
    assert line.answers[1:] == [(1, 1)]
    line.link.close("the end")


@timeless
async def test_one_timer_after_the_other_ends_every_call():
    line = Line(asyncio.get_running_loop().time)
    for number in range(20):
        line.call(number, 0.01)
        await asyncio.sleep(0.003)
    await line.until(20)
    assert line.kinds() == [(number, "timeout") for number in range(20)]
    line.link.close("the end")


@timeless
async def test_one_that_says_nothing_while_calls_wait_is_left(monkeypatch):
    monkeypatch.setattr(wire, "SILENCE", 0.05)
    line = Line(asyncio.get_running_loop().time)
    line.call(1, 0.01)
    line.call(2, 60.0)
    await line.until(2)
    assert line.kinds() == [(1, "timeout"), (2, "connection")]
    assert line.paper.ended == 1


async def test_one_that_answers_others_is_not_silent_and_one_that_stops_is():
    clock = SettableClock(0.0)
    line = Line(clock)
    line.call(1, 60.0)
    line.call(2, 60.0)
    clock.advance(0.9)
    line.link.data_received(b":1\r\n")
    clock.advance(0.9)
    line.link._expire()
    assert line.answers == [(1, 1)]
    clock.advance(0.2)
    line.link._expire()
    assert line.kinds() == [(2, "connection")]
    assert "nothing came for 1.1 s" in str(line.answers[1][1])


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", [(1, "nonsense"), (2, "nonsense")]),
        (b":1\r\nnonsense", [(2, "nonsense")]),
        (b":1\r\n:2\r\n:3\r\n", []),
        (b":1\r\n:2\r\n-ERR max number of clients reached\r\n", []),
        (b"*9999999999999\r\n", [(1, "nonsense"), (2, "nonsense")]),
        (b"%1\r\n*1\r\n:1\r\n:1\r\n", [(1, "nonsense"), (2, "nonsense")]),
    ],
)
async def test_what_is_no_reply_ends_the_connection_and_all_that_wait(data, kinds):
    line = Line()
    line.call(1)
    line.call(2)
    line.link.data_received(data)
    assert line.kinds() == kinds
    assert len(line.answers) == 2
    assert line.paper.ended == 1
    assert not line.link.has_room()
    line.link.connection_lost(None)
    assert len(line.answers) == 2
    assert "closed by the other" not in str(line.link.gone.result())


async def test_at_its_end_all_that_wait_are_answered_before_it_returns():
    line = Line()
    line.call(1)
    line.call(2)
    line.link.close("we go")
    assert [(number, str(error)) for number, error in line.answers] == [
        (1, "connection: we go"),
        (2, "connection: we go"),
    ]
    line.link.connection_lost(None)
    assert str(await line.link.gone) == "connection: we go"


async def test_there_is_room_for_so_many_calls_and_none_while_the_socket_is_full():
    line = Line()
    for number in range(MOST_CALLS):
        assert line.link.has_room()
        line.call(number)
    assert not line.link.has_room()
    line.link.data_received(b":0\r\n")
    assert line.link.has_room()
    line.link.pause_writing()
    assert not line.link.has_room()
    line.link.resume_writing()
    assert line.link.has_room()
    line.link.close("the end")


async def test_a_callback_may_ask_again_and_may_end_the_connection():
    line = Line()

    def settle(_: Call, reply: object) -> None:
        if reply == 1:
            line.call(9)
        elif not isinstance(reply, RedisError):
            line.link.close("enough")

    line.link.settle = settle
    line.call(1)
    line.link.data_received(b":1\r\n:2\r\n:3\r\n")
    assert len(line.paper.written) == 2
    assert line.paper.ended == 1
