"""One channel that is listened to, over a connection of its own that is kept up."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import hiredis

from mxweir.background import go_on
from mxweir.backoff import Backoff
from mxweir.clock import Clock
from mxweir.endpoint import Endpoint
from mxweir.events import Observer, Trouble
from mxweir.redis.dial import Manners, greet, open_link
from mxweir.redis.errors import RedisError
from mxweir.redis.replies import error_of
from mxweir.redis.wire import Link

_PING_EVERY = 2.0
_SILENCE = 6.0
"""Seconds; pings are answered also where nothing is published."""

_FIRST, _MOST = 0.25, 2.0


class Subscription:
    """Hears one channel; whoever listens is told each time that it hears again."""

    def __init__(
        self,
        manners: Manners,
        find: Callable[[], Awaitable[Endpoint]],
        channel: str,
        on_message: Callable[[bytes], None],
        on_connected: Callable[[], None],
    ) -> None:
        self._manners = manners
        self._find = find
        self._channel = channel
        self._on_message = on_message
        self._on_connected = on_connected
        self._backoff = Backoff(_FIRST, _MOST)
        self._told = False
        """Whether it was told that nothing is heard; once, until something is."""
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, and go on listening."""
        self._task = asyncio.get_running_loop().create_task(go_on(self._keep, self._manners.observe))

    def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
        if self._link is not None:
            self._link.close("we are about to end")

    async def _keep(self) -> None:
        while True:
            try:
                why = await self._listen()
            except RedisError as error:
                why = error
            if not self._told:
                self._told = True
                self._manners.observe(Trouble("Redis channel not heard", f"{self._channel}: {why}"))
            await asyncio.sleep(self._backoff.failed(random.random()))  # noqa: S311 - no secret

    async def _listen(self) -> RedisError:
        """Hear the channel until the connection ends; why it did."""
        manners = self._manners
        link = await open_link(
            await self._find(), manners.tls, lambda: _Hearing(manners.clock, self._take, manners.observe)
        )
        self._link = link
        try:
            await greet(link, manners.login, manners.database, ())
            link.put(("SUBSCRIBE", self._channel))
            while not link.gone.done():
                await asyncio.wait([link.gone], timeout=_PING_EVERY)
                if manners.clock() - link.heard > _SILENCE:
                    link.close(f"nothing came for {_SILENCE:g} s")
                link.put(("PING",))
            return link.gone.result()
        finally:
            link.close("it is not needed")

    def _take(self, reply: object) -> None:
        """A message, or what is said to SUBSCRIBE and PING."""
        match reply:
            case [b"message", _, bytes() as message]:
                self._on_message(message)
            case [b"subscribe", *_]:
                self._backoff.succeeded()
                self._told = False
                self._on_connected()


class _Hearing(Link):
    """A connection on which replies come that are no answers."""

    def __init__(self, clock: Clock, take: Callable[[object], None], observe: Observer) -> None:
        super().__init__(clock)
        self._take = take
        self._observe = observe

    def unawaited(self, reply: object) -> None:
        """Hand it to the subscription, unless it is an error."""
        if isinstance(reply, hiredis.ReplyError):
            self.close(str(error_of(str(reply))))
            return
        try:
            self._take(reply)
        except Exception as error:  # noqa: BLE001 - a message is lost then, and not the connection
            self._observe(Trouble("internal error at a message of Redis", repr(error), "error"))
