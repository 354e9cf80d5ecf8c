"""One Redis server that takes our writes: a connection that is kept up, and a breaker in front of it.

Without a connection, or with the breaker open, a call is answered at once: whoever
asks has something better to do than to wait. After each new connection the breaker
is a new one, for what answers may be another server, and well.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from mxweir.background import go_on
from mxweir.backoff import Backoff
from mxweir.breaker import Breaker, Change, Settings, State
from mxweir.clock import Clock
from mxweir.endpoint import Endpoint
from mxweir.events import Trouble, Unanswered
from mxweir.redis.call import Call, Words
from mxweir.redis.dial import Manners, greet, open_link, time_of
from mxweir.redis.errors import RedisError
from mxweir.redis.offset import Offset
from mxweir.redis.replies import error_of
from mxweir.redis.standing import Standing
from mxweir.redis.wire import Link

_BREAKER = Settings(window=5.0, min_calls=8, failures=0.5, slow_after=60.0, pause=0.5, probes=3)
"""That a call is slow is its timeout's business."""

_FIRST, _MOST = 0.25, 2.0
"""Seconds: the lowest and the highest ceiling of the wait before a new connection."""


class Master:
    """A server and the connection to it.

    `find` says where it is, each time anew, or raises RedisError. `astray` is asked
    about each error reply, and says whether it has taken the call into its hands;
    `lost` is called when a connection has ended or was not to be had. `make` makes
    what calls go over.
    """

    def __init__(
        self,
        manners: Manners,
        find: Callable[[], Awaitable[Endpoint]],
        astray: Callable[["Master", Call, str], bool] = lambda *_: False,
        lost: Callable[[], None] = lambda: None,
        make: Callable[[Clock], Link] = Link,
    ) -> None:
        self._manners = manners
        self._find = find
        self._astray = astray
        self._lost = lost
        self._make = make
        self._clock = manners.clock
        self._link: Link | None = None
        self._breaker = Breaker(_BREAKER, self._clock())
        self._backoff = Backoff(_FIRST, _MOST)
        self._standing = Standing(manners.observe, self._clock)
        self._tried = asyncio.Event()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.offset = Offset(self._clock)
        """How far its clock is ahead; of the server that we are connected to, or were last."""
        self.endpoint: Endpoint | None = None
        """Where it was found last."""
        self.answered = 0
        """Calls that had a reply."""
        self._bringing: dict[str, Call] = {}
        """By a script's hash, the call that brought it last, for itself and those behind it."""
        self._full = False
        """Whether it refused to write, and no script has been done since."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def fresh(self) -> bool:
        """Whether the first try to connect is still under way."""
        return not self._tried.is_set()

    @property
    def available(self) -> bool:
        """Whether a call would be sent now."""
        link = self._link
        return link is not None and link.has_room() and self._breaker.would_allow(self._clock())

    @property
    def well(self) -> bool:
        """Whether it is connected, and its breaker closed."""
        return self._standing.good is True

    def start(self) -> None:
        """Connect, and keep connected."""
        self._task = asyncio.get_running_loop().create_task(go_on(self._keep, self._manners.observe))

    async def tried(self) -> None:
        """Return when the first try has ended, however it went."""
        await self._tried.wait()

    def renew(self, why: str) -> None:
        """Find it anew, and connect there: soon, but not all hosts in the same instant."""
        self._news.set()
        if self._link is not None:
            self._link.close(why)

    def close(self) -> None:
        """End the connection, for good; whoever waits is answered before this returns."""
        if self._task is not None:
            self._task.cancel()
        self.renew("we are about to end")
        self._link = None

    def call(self, call: Call) -> None:
        """Send a call, or answer it at once."""
        link = self._link
        if link is None or not link.has_room():
            self._refuse(call, "no connection" if link is None else "too many calls are under way")
            return
        permit = self._breaker.allow(call.sent)
        if permit is None:
            self._refuse(call, "left alone until it has answered again")
            return
        call.permit = permit
        if call.asking:
            link.ask(("ASKING",), call.deadline - call.sent)
        link.send(call)

    async def ask(self, words: Words, seconds: float) -> Any:
        """Give a command and wait so long for its reply; RedisError included."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def then(reply: object) -> None:
            if not answer.done():
                answer.set_result(reply)

        self.call(Call(words, then, self._clock(), seconds))
        return await answer

    async def _keep(self) -> None:
        while True:
            self._news.clear()
            try:
                self.endpoint = await self._find()
                link = await self._connect(self.endpoint)
            except RedisError as error:
                self._standing.bad(self._at(), error)
            else:
                await self._serve(link)
            self._tried.set()
            self._lost()
            await self._pause()

    async def _pause(self) -> None:
        """Wait before the next try; when there is something new, only as long as after a first failure."""
        try:
            async with asyncio.timeout(self._backoff.failed(random.random())):  # noqa: S311 - no secret
                await self._news.wait()
        except TimeoutError:
            return
        self._backoff.succeeded()
        await asyncio.sleep(self._backoff.failed(random.random()))  # noqa: S311 - no secret

    async def _serve(self, link: Link) -> None:
        """Let calls go over a connection until it ends."""
        before, self._breaker = self.answered, Breaker(_BREAKER, self._clock())
        self._link, link.settle = link, self._settle
        self._standing.well(self._at())
        self._tried.set()
        error = await link.gone
        self._link = None
        if self.answered > before:
            self._backoff.succeeded()
        self._standing.bad(self._at(), error)

    async def _connect(self, endpoint: Endpoint) -> Link:
        manners = self._manners
        link = await open_link(endpoint, manners.tls, lambda: self._make(self._clock))
        try:
            role = await greet(link, manners.login, manners.database, manners.scripts.values())
            now = await time_of(link)
        except BaseException:
            link.close("it did not greet")
            raise
        if role == b"slave":
            link.close("it is a replica")
            raise RedisError("read-only", "it is a replica")
        # The clock may be that of another server, as after a failover.
        self.offset = Offset(self._clock)
        if now:
            self.offset.learn(now)
        return link

    def _at(self) -> str:
        return str(self.endpoint or self._manners.where)

    def _settle(self, call: Call, reply: object) -> None:
        """What a connection has for a call: the reply, or an error of either kind."""
        if isinstance(reply, Exception):
            self._settle_error(call, reply)
            return
        now = self._clock()
        self.answered += 1
        if call.words[0] in ("EVALSHA", "EVAL"):
            self._full = False
        if self._full:
            # What a plain command asks, a server still answers that has no room to count.
            self._breaker.forget(call.permit)
        else:
            change = self._breaker.record(call.permit, True, now - call.sent, now)
            if change is not None:
                self._tell(change, None)
        self._answer(call, reply)

    def _settle_error(self, call: Call, reply: Exception) -> None:
        if isinstance(reply, RedisError):
            error = reply
        elif self._again(call, str(reply)):
            return
        else:
            error = error_of(str(reply))
        now = self._clock()
        change = None
        if error.kind in ("connection", "nonsense"):
            # That the connection has ended says it all; there will be a new breaker.
            self._breaker.forget(call.permit)
        else:
            self._full = self._full or error.kind == "full"
            change = self._breaker.record(call.permit, error.kind == "error", now - call.sent, now)
        self._count(error)
        if change is not None:
            self._tell(change, error)
        if error.kind == "read-only" and self._link is not None:
            self._link.close(str(error))
        self._answer(call, error)

    def _again(self, call: Call, text: str) -> bool:
        """Whether an error reply is one that the caller need not see: the call goes out again."""
        link = self._link
        if text.startswith("NOSCRIPT") and call.script is not None and link is not None and link.has_room():
            first = self._bringing.get(call.script.sha)
            if first is None or first.then is None:
                self._bringing[call.script.sha] = call
                call.words = ("EVAL", call.script.source, *call.words[2:])
                call.script = None
            # Else it comes behind the one that brings the script, and finds it there.
            if call.asking:
                link.ask(("ASKING",), call.deadline - call.sent)
            link.send(call)
            return True
        if self._astray(self, call, text):
            self._breaker.forget(call.permit)
            return True
        return False

    def _tell(self, change: Change, error: RedisError | None) -> None:
        if change.state is State.OPEN:
            why = RedisError(error.kind if error else "timeout", f"{change.why}, the last by: {error}")
            self._standing.bad(self._at(), why)
        else:
            self._standing.well(self._at())

    def _refuse(self, call: Call, why: str) -> None:
        error = RedisError("unavailable", why)
        self._count(error)
        self._answer(call, error)

    def _count(self, error: RedisError) -> None:
        self._standing.failed(error.kind)
        self._manners.observe(Unanswered(error.kind))

    def _answer(self, call: Call, reply: object) -> None:
        try:
            call.answer(reply)
        except Exception as error:  # noqa: BLE001 - the connection has other calls, which have not failed
            self._manners.observe(Trouble("internal error at a reply of Redis", repr(error), "error"))
