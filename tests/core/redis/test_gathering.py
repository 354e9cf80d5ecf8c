import asyncio
import time
from typing import cast

from mxweir.redis.call import Call
from mxweir.redis.gathering import GatheringLink


class Paper:
    """A transport on which nothing goes anywhere."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def set_write_buffer_limits(self, high: int | None, low: int | None) -> None:
        pass


def linked() -> tuple[GatheringLink, Paper, list[object]]:
    paper, answers = Paper(), list[object]()
    link = GatheringLink(time.monotonic)
    link.connection_made(cast(asyncio.BaseTransport, paper))
    return link, paper, answers


async def test_calls_of_one_turn_leave_in_one_write_in_their_order_and_those_of_the_next_in_another() -> None:
    link, paper, answers = linked()
    for turn in range(2):
        for number in range(3):
            link.send(Call(("PING", 3 * turn + number), answers.append, time.monotonic(), 10.0))
        assert len(paper.written) == turn
        await asyncio.sleep(0)
    assert paper.written == [
        b"".join(b"*2\r\n$4\r\nPING\r\n$1\r\n%d\r\n" % number for number in numbers)
        for numbers in ((0, 1, 2), (3, 4, 5))
    ]
    link.data_received(b"".join(b":%d\r\n" % number for number in range(6)))
    assert answers == list(range(6))
    link.close("the end")


async def test_what_was_not_sent_when_the_connection_ends_is_not_sent_any_more() -> None:
    link, paper, answers = linked()
    link.send(Call(("PING",), answers.append, time.monotonic(), 10.0))
    link.close("the end")
    await asyncio.sleep(0)
    assert paper.written == []
    assert [str(answer) for answer in answers] == ["connection: the end"]
