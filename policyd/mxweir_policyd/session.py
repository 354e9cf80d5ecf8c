"""One connection: bytes from asyncio to the codec, answers back.

Nothing is decided here. Whatever goes wrong in deciding, Postfix gets `DUNNO`
and goes on with its own restrictions: a fault of ours neither refuses mail nor
lets anybody relay.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
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

    def answer(self, requests: Sequence[Request]) -> list[bytes]:
        """The replies to requests that came in together."""
        started, now = perf_counter(), self.clock()
        pipeline, observe = self.pipeline, self.observe
        replies = []
        for request in requests:
            try:
                facts = pipeline.facts(request)
                decision = pipeline.decide(facts, now)
                reply = _DUNNO if decision is PASS else format_reply(decision.reply)
                observe(tuple.__new__(Decided, (facts, decision, perf_counter() - started)))
            except Exception as error:  # noqa: BLE001 - whatever it is, Postfix gets its answer
                what = f"{type(error).__name__}: {error}"
                observe(Trouble("internal error, answered DUNNO", what, "error"))
                reply = _DUNNO
            replies.append(reply)
        return replies


class Sessions:
    """The open connections of one daemon, bounded in number."""

    def __init__(self, most: int, answerer: Answerer) -> None:
        self.most = most
        self.answerer = answerer
        self.observe = answerer.observe
        self.open: set[Session] = set()
        self.turn = Turn(answerer)

    def close_idle(self) -> None:
        """Close those that have no request half read."""
        self.turn.answer()
        for session in list(self.open):
            if not session.busy:
                session.close()


class Turn:
    """What came in during one turn of the loop: first all of it is read, then decided, then answered.

    Reading, deciding and writing by turns for each connection costs half as much
    again: the code and data of the kernel and of ours push each other out of the
    processor's caches, and each answer wakes a process that then takes the
    processor from us. Done in a row, most find their reader awake.
    """

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._waiting: list[tuple[PolicySession, bytes]] = []

    def take(self, session: "PolicySession", data: bytes) -> None:
        """Answer these bytes before the loop waits again."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.answer)
        self._waiting.append((session, data))

    def answer(self) -> None:
        """Answer all that waits."""
        waiting, self._waiting = self._waiting, []
        asked = [(session, request) for session, data in waiting for request in session.read(data)]
        answers = self._answerer.answer([request for _, request in asked])
        for (session, _), answer in zip(asked, answers, strict=True):
            try:
                session.transport.write(answer)
            except RuntimeError:  # uvloop's word for a connection that is gone; the others want theirs
                continue


class Session(asyncio.Protocol):
    """What policy and map connections have in common."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """Whether a request has begun and not ended."""
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or close it when there are too many."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports inherit from nothing
        if len(self._sessions.open) >= self._sessions.most:
            self._sessions.observe(
                Trouble("too many connections", f"max_connections = {self._sessions.most}")
            )
            self.transport.abort()
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
        self.transport.abort()  # close() would wait until everything is sent, which it never is

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    def _refuse(self, what: str, detail: str) -> None:
        self._sessions.observe(Trouble(what, f"{detail}; connection closed"))
        self.close()


class PolicySession(Session):
    """A connection of one smtpd process."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(sessions)
        self._reader = RequestReader()
        self.data_received = partial(sessions.turn.take, self)  # type: ignore[method-assign]

    @property
    def busy(self) -> bool:
        """Whether a request has begun and not ended."""
        return self._reader.pending

    def read(self, data: bytes) -> list[Request]:
        """The requests that are whole now."""
        try:
            return self._reader.feed(data)
        except ProtocolError as error:
            self._refuse("policy protocol error", str(error))
            return []


class MapSession(Session):
    """A connection to the map server."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(sessions)
        self._reader = LookupReader()

    def data_received(self, data: bytes) -> None:
        """Answer every lookup that is whole now."""
        try:
            lookups = self._reader.feed(data)
        except SocketmapError as error:
            self._refuse("map protocol error", str(error))
            return
        domains = self._sessions.answerer.pipeline.domains
        for lookup in lookups:
            self.transport.write(maps.answer(lookup, domains))
