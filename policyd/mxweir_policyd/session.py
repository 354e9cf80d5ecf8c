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
from mxweir_policyd.decision import Decision
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import ProtocolError, Request, RequestReader, format_reply
from mxweir_policyd.socketmap import LookupReader, SocketmapError

_REPLIES_KEPT = 256


class Answerer:
    """Answers requests by the pipeline in force, and tells the observers; shared by all connections."""

    def __init__(self, pipeline: Pipeline, clock: Callable[[], float], observe: Observer) -> None:
        self.pipeline = pipeline
        self.clock = clock
        self.observe = observe
        self._replies: dict[str, bytes] = {}

    def answer(self, request: Request) -> bytes:
        """The reply to one request."""
        started = perf_counter()
        try:
            facts = self.pipeline.facts(request)
            decision = self.pipeline.decide(facts, self.clock())
            reply = self._format(decision)
            verdict, text, check, rule, key, figure, observed = decision
            self.observe(
                Decided(facts, verdict, check, rule, key, figure, text, perf_counter() - started, observed)
            )
        except Exception as error:
            self.observe(
                Trouble("internal error, answered DUNNO", f"{type(error).__name__}: {error}", "error")
            )
            return b"action=DUNNO\n\n"
        return reply

    def _format(self, decision: Decision) -> bytes:
        reply = self._replies.get(decision.reply)
        if reply is None:
            reply = format_reply(decision.reply)
            if len(self._replies) < _REPLIES_KEPT:
                self._replies[decision.reply] = reply
        return reply


class Sessions:
    """The open connections of one daemon, bounded in number."""

    def __init__(self, most: int, observe: Observer) -> None:
        self.most = most
        self.observe = observe
        self.open: set[Session] = set()

    def close_idle(self) -> None:
        """Close those that have no request half read."""
        for session in list(self.open):
            if not session.busy:
                session.close()


class Session(asyncio.Protocol):
    """What policy and map connections have in common."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._transport: asyncio.Transport | None = None

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

    def pause_writing(self) -> None:
        """A peer that asks and does not read its answers is no smtpd; close before its answers pile up."""
        self._sessions.observe(Trouble("peer does not read its answers", "connection closed"))
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
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
        assert self._transport is not None
        if self._transport.is_closing():
            return
        try:
            requests = self._reader.feed(data)
        except ProtocolError as error:
            self._refuse("policy protocol error", str(error))
            return
        for request in requests:
            self._transport.write(self._answerer.answer(request))


class MapSession(Session):
    """A connection to the map server."""

    def __init__(self, sessions: Sessions, answerer: Answerer) -> None:
        super().__init__(sessions)
        self._answerer = answerer
        self._reader = LookupReader()

    def data_received(self, data: bytes) -> None:
        """Answer every lookup that is whole now."""
        assert self._transport is not None
        try:
            lookups = self._reader.feed(data)
        except SocketmapError as error:
            self._refuse("map protocol error", str(error))
            return
        for lookup in lookups:
            self._transport.write(maps.answer(lookup, self._answerer.pipeline.find_domain))
