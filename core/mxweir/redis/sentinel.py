"""The master that sentinels have chosen (redis.io, "Sentinel client spec").

They are asked before each connection, and each time another one, for one of them may
be cut off from the others. That the one that they name is a master, it says itself
when it is greeted. A failover is heard from a sentinel; a missed one is noticed by
the connection that ends, by READONLY, and by asking after each time that hearing broke off.
"""

import asyncio
from collections.abc import Sequence

from mxweir.endpoint import Endpoint, Inet
from mxweir.redis.client import Alone
from mxweir.redis.dial import Manners, greet, open_link
from mxweir.redis.errors import RedisError
from mxweir.redis.subscription import Subscription
from mxweir.redis.wire import Link

_ASK_SECONDS = 0.5


class Sentinels:
    """Some sentinels, and what they call the master."""

    def __init__(self, manners: Manners, addresses: Sequence[Endpoint], name: str) -> None:
        self.name = name
        self._manners = manners
        self._addresses = addresses
        self._next = 0

    async def one(self) -> Endpoint:
        """The next one in turn."""
        self._next = (self._next + 1) % len(self._addresses)
        return self._addresses[self._next]

    async def master(self) -> Endpoint:
        """Where the master is, as the first one says that can be asked. Raises RedisError."""
        error = RedisError("connection", "no sentinel")
        for _ in self._addresses:
            address = await self.one()
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    return await self._ask(address)
            except TimeoutError:
                error = RedisError("connection", f"sentinel {address} does not answer")
            except RedisError as caught:
                error = RedisError(caught.kind, f"sentinel {address}: {caught.detail}")
        raise error

    async def _ask(self, address: Endpoint) -> Endpoint:
        manners = self._manners
        link = await open_link(address, manners.tls, lambda: Link(manners.clock))
        try:
            await greet(link, manners.login, 0, ())
            reply = await link.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name), _ASK_SECONDS)
        finally:
            link.close("it has been asked")
        if isinstance(reply, Exception):
            raise RedisError("refused", str(reply)[:200])
        if reply is None:
            raise RedisError("down", f"it knows no master {self.name!r}")
        try:
            host, port = reply
            return Inet(host.decode(), int(port))
        except (TypeError, ValueError, AttributeError):  # not two texts
            raise RedisError("nonsense", "it names no address") from None


class Watched(Alone):
    """The master, wherever it is; one sentinel is listened to for a failover."""

    def __init__(self, manners: Manners, watching: Manners, sentinels: Sentinels) -> None:
        super().__init__(manners, sentinels.master)
        self._sentinels = sentinels
        self._switches = Subscription(watching, sentinels.one, "+switch-master", self._switched, self._missed)
        self._checking: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect, and keep connected; return after the first try."""
        self._switches.start()
        await super().connect()

    def close(self) -> None:
        """End all connections; whoever still waits gets a RedisError."""
        self._switches.close()
        if self._checking is not None:
            self._checking.cancel()
        super().close()

    def _switched(self, message: bytes) -> None:
        """`NAME OLD-HOST OLD-PORT NEW-HOST NEW-PORT` (redis.io, "Sentinel", Pub/Sub messages)."""
        if message.split(b" ")[0] == self._sentinels.name.encode():
            self._master.renew("the sentinels have chosen another master")

    def _missed(self) -> None:
        self._checking = asyncio.get_running_loop().create_task(self._check())

    async def _check(self) -> None:
        """Whether a failover was missed."""
        try:
            chosen = await self._sentinels.master()
        except RedisError:
            return
        if self._master.connected and self._master.endpoint != chosen:
            self._master.renew("the sentinels have chosen another master")
