"""What the topologies have in common: calls are made, and go to the master of their first key."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mxweir.endpoint import Endpoint
from mxweir.events import Unanswered
from mxweir.redis.call import Call, Then
from mxweir.redis.dial import Manners
from mxweir.redis.errors import RedisError
from mxweir.redis.master import Master
from mxweir.redis.offset import Offset
from mxweir.redis.script import Script
from mxweir.redis.subscription import Subscription

_START_SECONDS = 2.0


class Client(ABC):
    """See `mxweir.redis.servers.Servers`."""

    clustered = False

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._clock = manners.clock
        self._scripts = manners.scripts
        self._subscriptions: list[Subscription] = []
        self._unknown = Offset(manners.clock)
        """Of no server."""

    @abstractmethod
    def masters(self) -> Sequence[Master]:
        """All that are known."""

    @abstractmethod
    def master_of(self, key: bytes | str) -> Master | None:
        """The one that has a key; None while none is known."""

    @abstractmethod
    async def find(self) -> Endpoint:
        """Where anything can be asked or heard; raises RedisError."""

    @abstractmethod
    async def connect(self) -> None:
        """Connect, and keep connected; return after the first try."""

    @property
    def available(self) -> bool:
        """Whether a call would be sent now: some master is connected, and its breaker would let it pass."""
        return any(master.available for master in self.masters())

    def states(self) -> Mapping[str, int]:
        """How many masters are "available" and how many "away"."""
        states = Counter("available" if master.well else "away" for master in self.masters())
        return {state: states[state] for state in ("available", "away")}

    async def start(self) -> None:
        """Connect, and keep connected; returns after the first try, or after two seconds."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self.connect()
        except TimeoutError:
            pass

    def eval(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[bytes | str | int],
        then: Then,
        timeout: float,
    ) -> None:
        """Run a script where the first key is."""
        if script.sha not in self._scripts:
            self._scripts[script.sha] = script
        words = ("EVALSHA", script.sha, len(keys), *keys, *args)
        self._send(keys[0] if keys else "", Call(words, then, self._clock(), timeout, script))

    def ask(self, command: Sequence[bytes | str | int], key: bytes | str, then: Then, timeout: float) -> None:
        """Give a command where that key is ("": anywhere)."""
        self._send(key, Call(tuple(command), then, self._clock(), timeout))

    def offset(self, key: bytes | str) -> Offset:
        """How far the clock is ahead that a script has where that key is."""
        master = self.master_of(key)
        return self._unknown if master is None else master.offset

    def subscribe(
        self, channel: str, on_message: Callable[[bytes], None], on_connected: Callable[[], None]
    ) -> None:
        """Hear a channel from now on."""
        subscription = Subscription(self._manners, self.find, channel, on_message, on_connected)
        self._subscriptions.append(subscription)
        subscription.start()

    def close(self) -> None:
        """End all connections; whoever still waits gets a RedisError."""
        for subscription in self._subscriptions:
            subscription.close()
        for master in self.masters():
            master.close()

    def _send(self, key: bytes | str, call: Call) -> None:
        master = self.master_of(key)
        if master is not None:
            master.call(call)
            return
        self._manners.observe(Unanswered("unavailable"))
        call.answer(RedisError("unavailable", "it is not known yet which server has the key"))


class Alone(Client):
    """All keys are on one master; `find` says where it is, each time anew."""

    def __init__(self, manners: Manners, find: Callable[[], Awaitable[Endpoint]]) -> None:
        super().__init__(manners)
        self._find = find
        self._master = Master(manners, find)

    def masters(self) -> Sequence[Master]:
        """The one."""
        return (self._master,)

    def master_of(self, key: bytes | str) -> Master:
        """The one."""
        return self._master

    async def find(self) -> Endpoint:
        """Where it is."""
        return await self._find()

    async def connect(self) -> None:
        """Connect, and keep connected; return after the first try."""
        self._master.start()
        await self._master.tried()


def single(manners: Manners, endpoint: Endpoint) -> Alone:
    """A server that is where it is."""

    async def find() -> Endpoint:
        return endpoint

    return Alone(manners, find)
