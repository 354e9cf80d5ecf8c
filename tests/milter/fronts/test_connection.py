"""The connection on a pair of sockets; what it serves is test_asyncio.py's business."""

import asyncio
import socket

import pytest

from mxweir_milter.fronts.connection import Connection
from mxweir_milter.sockets import Sockets

LARGE = b"0123456789" * 100_000
"""More than any socket has room for."""


class Talk(Connection):
    """A connection, its other end, and what it was told."""

    def __init__(self, sockets):
        here, self.there = socket.socketpair()
        self.there.setblocking(False)
        super().__init__(sockets, here)
        self.heard = []
        self.lost_times = 0

    def hear(self, data):
        self.heard.append(data)

    def lost(self):
        self.lost_times += 1

    def take(self):
        """What the other end can read now; empty at the end, None where there is nothing yet."""
        try:
            return self.there.recv(1_000_000)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""


@pytest.fixture
def talks():
    """Makes connections."""
    made = []

    def make(sockets=None):
        made.append(Talk(sockets or Sockets()))
        return made[-1]

    yield make
    for talk in made:
        talk.abort()
        talk.there.close()


async def turns():
    """What is there by now is told after a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def all_of(talk):
    """What the other end reads until the connection ends, or there is no more."""
    taken = b""
    while piece := talk.take():
        taken += piece
        await turns()
    return taken, piece is not None


async def test_what_is_said_is_there_before_the_loop_turns(talks):
    talk = talks()
    talk.send(b"one")
    talk.send(b"two")
    assert talk.take() == b"onetwo"
    assert talk.unsent == 0


async def test_what_comes_is_heard(talks):
    talk = talks()
    talk.there.send(b"hello")
    await turns()
    assert talk.heard == [b"hello"]


async def test_what_there_is_no_room_for_follows_in_order_and_then_it_hears_on(talks):
    talk = talks()
    talk.send(LARGE)
    talk.send(b"end")
    assert 0 < talk.unsent < len(LARGE)
    assert await all_of(talk) == (LARGE + b"end", False)
    assert talk.unsent == 0
    talk.there.send(b"hello")
    await turns()
    assert talk.heard == [b"hello"]


async def test_closed_it_hears_no_more_and_ends_when_all_is_sent(talks):
    talk = talks()
    talk.send(LARGE)
    talk.close()
    talk.there.send(b"hello")
    await turns()
    assert (talk.is_open, talk.heard, talk.lost_times) == (True, [], 0)
    assert await all_of(talk) == (LARGE, True)
    assert (talk.is_open, talk.heard, talk.lost_times) == (False, [], 1)


async def test_closed_with_nothing_unsent_it_ends_at_once(talks):
    talk = talks()
    talk.send(b"bye")
    talk.close()
    talk.close()
    assert (talk.is_open, talk.lost_times) == (False, 1)
    assert await all_of(talk) == (b"bye", True)


async def test_closed_it_ends_when_the_other_side_hangs_up_without_reading(talks):
    talk = talks()
    talk.send(LARGE)
    talk.close()
    talk.there.close()
    await turns()
    assert (talk.is_open, talk.lost_times) == (False, 1)


async def test_that_the_other_side_hangs_up_is_told_once(talks):
    talk = talks()
    talk.there.close()
    await turns()
    talk.send(b"too late")
    talk.abort()
    assert (talk.is_open, talk.lost_times, talk.unsent) == (False, 1, 0)


async def test_what_is_said_to_somebody_who_is_gone_ends_it(talks):
    talk = talks()
    talk.there.close()
    talk.send(b"too late")
    assert (talk.is_open, talk.lost_times) == (False, 1)


async def test_a_fault_at_what_was_heard_ends_it_and_no_other(talks):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what["exception"]))
    sockets = Sockets()
    faulty, other = talks(sockets), talks(sockets)

    def fault(data):
        raise RuntimeError(data)

    faulty.hear = fault
    for talk in (faulty, other):
        talk.there.send(b"hello")
    await turns()
    assert [str(error) for error in told] == ["b'hello'"]
    assert (faulty.is_open, faulty.lost_times) == (False, 1)
    assert (other.is_open, other.heard) == (True, [b"hello"])
