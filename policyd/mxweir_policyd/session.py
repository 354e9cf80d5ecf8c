"""One connection: bytes from asyncio to the codec, answers back.

Nothing is decided here. Whatever goes wrong in deciding, Postfix gets `DUNNO`
and goes on with its own restrictions: a fault of ours neither refuses mail nor
lets anybody relay.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import cast

from mxweir.events import Decided, Observer, Trouble
from mxweir_policyd import maps
from mxweir_policyd.decision import PASS
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import ProtocolError, Request, RequestReader, format_reply
from mxweir_policyd.socketmap import LookupReader, SocketmapError

_DUNNO = format_reply("DUNNO")


class Answerer:
    """Answers requests by the pipeline in force, and tells the observers; shared by all connections."""

    def __init__(self, pipeline: Pipeline, clock: Callable[[], float], observe: Observer) -> None:
        self.pipeline = pipeline
        self.clock = clock
        self.observe = observe

    def answer(self, request: Request) -> bytes:
        """The reply to one request."""
        started = perf_counter()
        try:
            facts = self.pipeline.facts(request)
            decision = self.pipeline.decide(facts, self.clock())
            reply = _DUNNO if decision is PASS else format_reply(decision.reply)
            self.observe(tuple.__new__(Decided, (facts, decision, perf_counter() - started)))
        except Exception as error:  # noqa: BLE001 - whatever it is, Postfix gets its answer
            self.observe(
                Trouble("internal error, answered DUNNO", f"{type(error).__name__}: {error}", "error")
            )
            return _DUNNO
        return reply


class Sessions:
    """The open connections of one daemon, bounded in number."""

    def __init__(self, most: int, observe: Observer) -> None:
        self.most = most
        self.observe = observe
        self.open: set[Session] = set()
        self.outbox = Outbox()

    def close_idle(self) -> None:
        """Close those that have no request half read."""
        for session in list(self.open):
            if not session.busy:
                session.close()


class Outbox:
    """Sends the answers of one turn of the loop together, at its end.

    Writing an answer wakes the process that waits for it. Done in between
    deciding, each write would wake a sleeping processor, at several times the
    cost of the decision; together, most find their reader awake.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Send before the loop waits again."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((transport, answer))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, answer in waiting:
            transport.write(answer)


class Session(asyncio.Protocol):
    """What policy and map connections have in common."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """Whether a request has begun and not ended."""
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or close it when there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports inherit from nothing
        if len(self._sessions.open) >= self._sessions.most:
            self._sessions.observe(
                Trouble("too many connections", f"max_connections = {self._sessions.most}")
            )
            self._transport.abort()
            return
        self._sessions.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._sessions.open.discard(self)
        if self.busy:
            self._sessions.observe(Trouble("connection closed within a request", str(exc or "by the peer")))

    def pause_writing(self) -> None:
        """A peer that asks and does not read its answers is no smtpd; close before its answers pile up."""
        self._sessions.observe(Trouble("peer does not read its answers", "connection closed"))
        self._transport.abort()  # close() would wait until everything is sent, which it never is

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _refuse(self, what: str, detail: str) -> None:
        self._sessions.observe(Trouble(what, f"{detail}; connection closed"))
        self.close()


class PolicySession(Session):
    """A connection of one smtpd process."""

    def __init__(self, sessions: Sessions, answerer: Answerer) -> None:
        super().__init__(sessions)
        self._answerer = answerer
        self._reader = RequestReader()

    @property
    def busy(self) -> bool:
        """Whether a request has begun and not ended."""
        return self._reader.pending

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole now."""
        try:
            requests = self._reader.feed(data)
        except ProtocolError as error:
            self._refuse("policy protocol error", str(error))
            return
        for request in requests:
            self._sessions.outbox.send(self._transport, self._answerer.answer(request))


class MapSession(Session):
    """A connection to the map server."""

    def __init__(self, sessions: Sessions, answerer: Answerer) -> None:
        super().__init__(sessions)
        self._answerer = answerer
        self._reader = LookupReader()

    def data_received(self, data: bytes) -> None:
        """Answer every lookup that is whole now."""
        try:
            lookups = self._reader.feed(data)
        except SocketmapError as error:
            self._refuse("map protocol error", str(error))
            return
        for lookup in lookups:
            self._transport.write(maps.answer(lookup, self._answerer.pipeline.domains))
