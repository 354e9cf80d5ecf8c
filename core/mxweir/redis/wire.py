"""One connection to Redis: commands go out as they come, replies come back in their order.

A call whose time is over is answered and stays in its place until its reply has come:
only their order says which reply is whose. So what waits is bounded, and a server that
answers late fills that bound instead of our memory. A server that says nothing at all
for a second while calls wait is taken for dead: nothing else shows a connection of
which the other end is gone.

There is one timer for a connection, not one for a call.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from mxweir.clock import Clock
from mxweir.redis.call import Call, Words
from mxweir.redis.errors import RedisError

MOST_CALLS = 512
"""Calls under way on a connection; one call holds all that waited in a worker at a time."""

MOST_REPLY = 32 * 2**20
"""Bytes of one reply."""

SILENCE = 1.0
"""Seconds in which something must come while calls wait."""

_MOST_UNSENT = 2**20
"""Bytes that may wait to be sent."""

_MORE = object()
"""What the parser gives for a reply that is not there as a whole."""


class Link(asyncio.Protocol):
    """A connection; replies are as hiredis has them: an error is a hiredis.ReplyError among them."""

    def __init__(self, clock: Clock) -> None:
        self.settle: Callable[[Call, object], None] = Call.answer
        """Gets each call with its reply or RedisError, and answers it or sends it elsewhere."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._waiting = deque[Call]()
        self._unread = 0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._why: RedisError | None = None
        self.heard = clock()
        """When something came last."""
        self.gone: asyncio.Future[RedisError] = self._loop.create_future()
        """Done when the connection has ended, with the reason."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio has it."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_MOST_UNSENT)

    def has_room(self) -> bool:
        """Whether one more call may be sent."""
        return len(self._waiting) < MOST_CALLS and not self._paused and self._transport is not None

    def put(self, words: Words) -> None:
        """Give a command whose reply nobody waits for: `unawaited` will have it."""
        if self._transport is not None:
            self._transport.write(hiredis.pack_command(words))  # type: ignore[arg-type] # as above

    def send(self, call: Call) -> None:
        """Send a call; there must be room."""
        self._transport.write(hiredis.pack_command(call.words))  # type: ignore[union-attr, arg-type] # its stub says one word
        self._waiting.append(call)
        if call.deadline < self._due:
            self._arm(call.deadline, call.sent)

    def ask(self, words: Words, timeout: float) -> "asyncio.Future[Any]":
        """Give a command while a connection is being made; the future has the reply, RedisError included."""
        answer: asyncio.Future[Any] = self._loop.create_future()

        def then(reply: object) -> None:
            if not answer.done():
                answer.set_result(reply)

        call = Call(words, then, self._clock(), timeout)
        if self.has_room():
            self.send(call)
        else:
            call.answer(self._why or RedisError("connection", "it is not open"))
        return answer

    def close(self, why: str) -> None:
        """End the connection at once; calls under way get a RedisError "connection" before this returns."""
        self._end(RedisError("connection", why))

    def data_received(self, data: bytes) -> None:
        """As asyncio has it."""
        self.heard = self._clock()
        self._unread += len(data)
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _MORE:
                self._unread = 0
                if not waiting:
                    if self._transport is None:
                        return
                    self.unawaited(reply)
                    continue
                call = waiting.popleft()
                if call.then is not None:
                    self.settle(call, reply)
        except (hiredis.ProtocolError, MemoryError, TypeError) as error:  # the last of a map in RESP3
            self._end(RedisError("nonsense", str(error)))
        if self._unread > MOST_REPLY:
            self._end(RedisError("nonsense", f"a reply of more than {MOST_REPLY} bytes"))

    def unawaited(self, reply: object) -> None:
        """A reply came that nobody waits for."""
        if isinstance(reply, hiredis.ReplyError):
            # What Redis says to a client that it does not let in, and closes: there are too many already.
            self._end(RedisError("connection", str(reply)[:200]))
        else:
            self._end(RedisError("nonsense", "a reply that nobody asked for"))

    def pause_writing(self) -> None:
        """As asyncio has it."""
        self._paused = True

    def resume_writing(self) -> None:
        """As asyncio has it."""
        self._paused = False

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio has it."""
        self._end(RedisError("connection", str(error) if error else "it was closed by the other side"))
        if self._timer is not None:
            self._timer.cancel()
        if not self.gone.done():
            self.gone.set_result(self._why or RedisError("connection"))

    def _end(self, error: RedisError) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._why = error
            transport.abort()
        while self._waiting:
            call = self._waiting.popleft()
            if call.then is not None:
                self.settle(call, error)

    def _arm(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.001, due - now), self._ring)

    def _ring(self) -> None:
        # uvloop looks at its timers before it looks at its sockets. After a turn that took long, the
        # replies may be there: two callbacks later they have been read.
        self._loop.call_soon(self._loop.call_soon, self._expire)

    def _expire(self) -> None:
        self._timer, self._due = None, math.inf
        now = self._clock()
        next_due = math.inf
        for call in list(self._waiting):
            if call.then is None:
                continue
            if call.deadline <= now + 0.001:
                self.settle(call, RedisError("timeout", f"no answer in {call.deadline - call.sent:.3f} s"))
            else:
                next_due = min(next_due, call.deadline)
        if not self._waiting or self._transport is None:
            return
        silent_at = max(self.heard, self._waiting[0].sent) + SILENCE
        if silent_at <= now:
            self.close(f"nothing came for {now - self.heard:.1f} s")
        else:
            self._arm(min(next_due, silent_at, self._due), now)
