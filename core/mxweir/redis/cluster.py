"""The masters of a Cluster, and which of them a key is on.

The map of slots is read from any node: at the start, every half minute or so, and
soon when something does not fit it: a connection that ended, a redirection. A
redirected call goes on to where it is sent, within its own deadline; its caller does
not notice. A redirection puts its slot right at once, so that moving a thousand slots
makes a thousand redirections, and not a reading of the map for each.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from mxweir.background import go_on
from mxweir.endpoint import Endpoint, Inet
from mxweir.redis.call import Call
from mxweir.redis.client import Client
from mxweir.redis.dial import Manners, greet, open_link
from mxweir.redis.errors import RedisError
from mxweir.redis.gathering import GatheringLink
from mxweir.redis.master import Master
from mxweir.redis.replies import error_of
from mxweir.redis.slots import SLOTS, Range, ranges_of, redirect_of, slot_of
from mxweir.redis.standing import Standing
from mxweir.redis.wire import Link

T = TypeVar("T")

_MOST_HOPS = 5
_MOST_MASTERS = 1000
_ASK_SECONDS = 1.0
_AGAIN = 0.01
"""Seconds until a call is tried again whose keys are being moved, or whose master is being connected."""

_EVERY, _SOON = 30.0, 1.0
"""Seconds between two readings of the map: if all is well, and if not; half of it is by chance."""

_KEPT = 60.0
"""Seconds for which a node that calls were sent on to is kept although the map does not have it."""


class Cluster(Client):
    """See `mxweir.redis.servers.Servers`; each call may only have keys of one slot."""

    clustered = True

    def __init__(self, manners: Manners, seeds: Sequence[Endpoint]) -> None:
        super().__init__(manners)
        self._seeds = tuple(seeds)
        self._slots: list[Master | None] = [None] * SLOTS
        self._masters: dict[Inet, Master] = {}
        self._sent_on: dict[Inet, float] = {}
        """When calls were last redirected to a node."""
        self._known: list[Inet] = []
        """All nodes of the map, replicas too."""
        self._later: dict[Call, asyncio.TimerHandle] = {}
        self._standing = Standing(manners.observe, manners.clock)
        self._stale = asyncio.Event()
        self._read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def masters(self) -> Sequence[Master]:
        """All that are connected to."""
        return tuple(self._masters.values())

    def master_of(self, key: bytes | str) -> Master | None:
        """The one that has the slot of a key."""
        return self._slots[slot_of(key)] if key else self._any()

    async def find(self) -> Endpoint:
        """Any node: what one publishes, all tell."""
        master = self._any()
        if master is not None and master.endpoint is not None:
            return master.endpoint
        return random.choice(self._seeds)  # noqa: S311 - no secret

    async def connect(self) -> None:
        """Read the map and connect to all masters, and keep it so; return after the first try."""
        self._task = asyncio.get_running_loop().create_task(go_on(self._follow, self._manners.observe))
        await self._read.wait()
        await asyncio.gather(*(master.tried() for master in self.masters()))

    def close(self) -> None:
        """End all connections; whoever still waits gets a RedisError."""
        if self._task is not None:
            self._task.cancel()
        for call, handle in list(self._later.items()):
            handle.cancel()
            call.answer(RedisError("connection", "we are about to end"))
        self._later.clear()
        super().close()

    def _any(self) -> Master | None:
        return next((master for master in self._masters.values() if master.available), None)

    # The map.

    async def _follow(self) -> None:
        while True:
            self._stale.clear()
            try:
                self._take(await self._map())
            except RedisError as error:
                self._standing.bad(self._manners.where, error)
            else:
                self._standing.well(self._manners.where)
            self._read.set()
            # Never more often than this, and not all hosts in the same instant.
            await asyncio.sleep(_SOON * (0.5 + random.random() / 2))  # noqa: S311 - no secret
            if all(master.connected for master in self._masters.values()) and self._masters:
                try:
                    async with asyncio.timeout(_EVERY * (0.5 + random.random() / 2)):  # noqa: S311
                        await self._stale.wait()
                except TimeoutError:
                    pass

    async def _map(self) -> list[Range]:
        """The map, as the first node says that can be asked. Raises RedisError."""
        error = RedisError("connection", "no node")
        for ask in self._ways():
            try:
                return await ask()
            except RedisError as caught:
                error = caught
        raise error

    def _ways(self) -> Iterator[Callable[[], Awaitable[list[Range]]]]:
        """How the map can be asked for: over connections that there are, or of nodes, known ones first."""
        for master in _mixed(self.masters()):
            if master.available:
                yield partial(self._map_by, master)
        for nodes in (self._known, self._seeds):
            for node in _mixed(nodes):
                yield partial(self._map_of, node)

    async def _map_by(self, master: Master) -> list[Range]:
        return _ranges(await master.ask(("CLUSTER", "SLOTS"), _ASK_SECONDS), master.endpoint)

    async def _map_of(self, node: Endpoint) -> list[Range]:
        manners = self._manners
        link = await open_link(node, manners.tls, lambda: Link(manners.clock))
        try:
            await greet(link, manners.login, 0, ())
            return _ranges(await link.ask(("CLUSTER", "SLOTS"), _ASK_SECONDS), node)
        finally:
            link.close("it has been asked")

    def _take(self, ranges: list[Range]) -> None:
        """Make the map the one in force."""
        slots: list[Master | None] = [None] * SLOTS
        for first, last, nodes in ranges:
            slots[first : last + 1] = [self._master(nodes[0])] * (last + 1 - first)
        self._slots = slots
        self._known = list({node for each in ranges for node in each.nodes})
        serving = {each.nodes[0] for each in ranges}
        now = self._clock()
        for node, master in list(self._masters.items()):
            if node not in serving and now - self._sent_on.get(node, -_KEPT) >= _KEPT:
                del self._masters[node]
                self._sent_on.pop(node, None)
                master.close()

    def _master(self, node: Inet) -> Master | None:
        """The master at a node, connected to from now on; None for one too many."""
        master = self._masters.get(node)
        if master is None and len(self._masters) < _MOST_MASTERS:

            async def find() -> Endpoint:
                return node

            master = self._masters[node] = Master(
                self._manners, find, self._astray, self._stale.set, GatheringLink
            )
            master.endpoint = node
            master.start()
        return master

    # Calls that went to the wrong node.

    def _astray(self, master: Master, call: Call, text: str) -> bool:
        """Send a call on whose slot is elsewhere or is being moved."""
        if text.startswith(("CLUSTERDOWN", "MASTERDOWN")):
            self._stale.set()
            return False
        again = text.startswith("TRYAGAIN")
        asked = master.endpoint.host if isinstance(master.endpoint, Inet) else ""
        redirect = None if again else redirect_of(text, asked)
        call.hops += 1
        if not again and (redirect is None or call.hops > _MOST_HOPS):
            return False
        if redirect is None:
            self._put_off(call, master)
            return True
        target = self._master(redirect.to)
        if target is None:
            return False
        self._sent_on[redirect.to] = self._clock()
        call.asking = not redirect.moved
        if redirect.moved:
            self._slots[redirect.slot] = target
            self._stale.set()
        self._send_on(call, target)
        return True

    def _send_on(self, call: Call, target: Master) -> None:
        self._later.pop(call, None)
        if self._clock() >= call.deadline:
            call.answer(RedisError("timeout", "its slot is being moved"))
        elif target.fresh:
            self._put_off(call, target)
        else:
            target.call(call)

    def _put_off(self, call: Call, target: Master) -> None:
        loop = asyncio.get_running_loop()
        self._later[call] = loop.call_later(_AGAIN, self._send_on, call, target)


def _mixed(some: Sequence[T]) -> Sequence[T]:
    """The same in any order, so that not all hosts ask the same node."""
    return random.sample(some, len(some))


def _ranges(reply: object, node: Endpoint | None) -> list[Range]:
    """What a node replies to CLUSTER SLOTS. Raises RedisError."""
    if isinstance(reply, RedisError):
        raise reply
    if isinstance(reply, Exception):
        raise error_of(str(reply))
    return ranges_of(reply, node.host if isinstance(node, Inet) else "")
