"""The connections: bytes from asyncio to the codec, answers back, later where a backend is to be asked."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from os import write
from time import monotonic
from typing import Any, cast

from mxweir.events import Trouble
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.deferred import Answers
from mxweir_policyd.protocol import Attributes, ProtocolError, RequestReader
from mxweir_policyd.socketmap import LookupReader, SocketmapError


class Sessions:
    """The open connections of one daemon, bounded in number."""

    def __init__(self, most: int, answerer: Answerer) -> None:
        self.most = most
        self.answerer = answerer
        self.observe = answerer.observe
        self.open: set[Session] = set()
        self.closed: Callable[[], None] = lambda: None
        """Is called for each connection that was made and is gone."""
        self.turn = Turn(answerer)

    def close_idle(self) -> None:
        """Close those that have no request half read."""
        self.turn.answer()
        for session in list(self.open):
            if not session.busy:
                session.close()


_ALONE = 0.0001
"""Seconds since the last answers were given: on a busy host the next questions wait for them to end."""


class Turn:
    """What came in during one turn of the loop: first all of it is read, then decided, then answered.

    Reading, deciding and writing by turns for each connection costs half as much
    again: the code and data of the kernel and of ours push each other out of the
    processor's caches, and each answer wakes a process that then takes the
    processor from us. Done in a row, most find their reader awake. Who comes alone
    has nobody to wait for, and another turn of the loop would cost him a tenth more.
    """

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._waiting: list[tuple[PolicySession, bytes]] = []
        self._answered = 0.0

    def take(self, session: "PolicySession", data: bytes) -> None:
        """Answer these bytes before the loop waits again."""
        if self._waiting or (now := monotonic()) - self._answered < _ALONE:
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self.answer)
            self._waiting.append((session, data))
            return
        self._answered = now
        try:
            requests = session.read(data)
        except ProtocolError as error:
            session.refuse("policy protocol error", str(error))
            return
        replies: Sequence[Any] = self._answerer.answer(requests)
        give = session.answers.give if self._answerer.debts.open else session.send
        for reply in replies:
            give(reply)

    def answer(self) -> None:
        """Answer all that waits."""
        waiting, self._waiting = self._waiting, []
        asked: list[PolicySession] = []
        requests: list[Attributes] = []
        for session, data in waiting:
            try:
                for request in session.read(data):
                    asked.append(session)
                    requests.append(request)
            except ProtocolError as error:
                session.refuse("policy protocol error", str(error))
        replies: Sequence[Any] = self._answerer.answer(requests)
        if self._answerer.debts.open:
            for session, reply in zip(asked, replies, strict=True):
                session.answers.give(reply)
        else:
            for session, reply in zip(asked, replies, strict=True):
                session.send(reply)
        self._answered = monotonic()


_NONE = -1
"""The descriptor of no socket: what is written to it fails."""


class Session(asyncio.Protocol):
    """What policy and map connections have in common."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.transport: asyncio.Transport
        self.answers = Answers(self.send)
        self._socket = _NONE

    @property
    def busy(self) -> bool:
        """Whether a request has begun and is not answered."""
        return len(self.answers) > 0

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
        self._socket = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._socket = _NONE
        self._sessions.open.discard(self)
        self._sessions.closed()
        if self.busy:
            self._sessions.observe(Trouble("connection closed within a request", str(exc or "by the peer")))

    def pause_writing(self) -> None:
        """A peer that asks and does not read its answers is no smtpd; close before its answers pile up."""
        self._sessions.observe(Trouble("peer does not read its answers", "connection closed"))
        self.transport.abort()  # close() would wait until everything is sent, which it never is

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    def send(self, answer: bytes) -> None:
        """Send it now; what there is no room for the transport sends later, and all that follows.

        The transport itself would not send before the end of the loop's turn, and
        what it does for that is a tenth of what a question costs that comes alone.
        """
        try:
            sent = write(self._socket, answer)
        except OSError:  # no room now, or no connection any more
            sent = 0
        if sent < len(answer):
            self._socket = _NONE
            if not self.transport.is_closing():
                self.transport.write(answer[sent:])

    def refuse(self, what: str, detail: str) -> None:
        """Close the connection of a peer that does not keep to the protocol."""
        self._sessions.observe(Trouble(what, f"{detail}; connection closed"))
        self.close()


class PolicySession(Session):
    """A connection of one smtpd process."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(sessions)
        self._reader = RequestReader()
        self.read = self._reader.feed
        self.data_received = partial(sessions.turn.take, self)  # type: ignore[method-assign]

    @property
    def busy(self) -> bool:
        """Whether a request has begun and is not answered."""
        return self._reader.pending or len(self.answers) > 0


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
            self.refuse("map protocol error", str(error))
            return
        for lookup in lookups:
            self.answers.give(self._sessions.answerer.look_up(lookup))
