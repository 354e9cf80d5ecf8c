import asyncio
import socket

import pytest

from mxweir_milter.sockets import READABLE, WRITABLE, Sockets


async def turns():
    """What is there by now is told after a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


class Pair:
    """A socket that is watched, its other end, and what was told of it."""

    def __init__(self, sockets, events):
        self.here, self.there = socket.socketpair()
        self.told = []
        sockets.watch(self.here.fileno(), events, self._tell)

    def _tell(self, events):
        self.told.append(events)
        self.then()

    def then(self):
        """What is done beside that; a test may put something else here."""


@pytest.fixture
def watched():
    """Makes watched pairs."""
    pairs = []

    def make(sockets, events=READABLE):
        pairs.append(Pair(sockets, events))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.here.close()
        pair.there.close()


async def test_what_is_readable_is_told_to_the_one_whose_it_is(watched):
    sockets = Sockets()
    one, other = watched(sockets), watched(sockets)
    one.there.send(b"x")
    await turns()
    assert set(one.told) == {READABLE}
    assert not other.told


async def test_that_there_is_room_is_told_only_to_who_asks(watched):
    sockets = Sockets()
    pair = watched(sockets, READABLE | WRITABLE)
    await turns()
    assert set(pair.told) == {WRITABLE}
    sockets.change(pair.here.fileno(), READABLE)
    pair.told.clear()
    await turns()
    assert not pair.told


async def test_that_the_other_side_has_closed_is_for_the_one_who_reads(watched):
    pair = watched(Sockets())
    pair.there.close()
    await turns()
    assert pair.told
    assert pair.told[0] & ~WRITABLE


async def test_one_that_is_forgotten_while_it_is_ready_is_not_told(watched):
    sockets = Sockets()
    pairs = [watched(sockets) for _ in range(2)]

    def forget_both():
        for pair in pairs:
            sockets.forget(pair.here.fileno())
            pair.here.close()

    for pair in pairs:
        pair.then = forget_both
        pair.there.send(b"x")
    await turns()
    assert sum(len(pair.told) for pair in pairs) == 1
