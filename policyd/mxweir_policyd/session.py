"""One connection: bytes from asyncio to the codec, answers back, later where a backend is to be asked.

Nothing is decided here. Whatever goes wrong in deciding, Postfix gets `DUNNO`
and goes on with its own restrictions: a fault of ours neither refuses mail nor
lets anybody relay.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import cast

from mxweir.domains.match import Match, State
from mxweir.events import Decided, Observer, Passed, Trouble
from mxweir.facts import Facts
from mxweir_policyd import maps
from mxweir_policyd.decision import UNCONFIRMED
from mxweir_policyd.deferred import Answers, Debts, Owed
from mxweir_policyd.express import PASSED
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import Attributes, ProtocolError, RequestReader, format_reply
from mxweir_policyd.socketmap import Lookup, LookupReader, SocketmapError

Confirm = Callable[[str, Callable[[Match], None]], None]
"""Asks PostgreSQL about a folded domain, and calls with what it says."""


class Answerer:
    """Answers requests by the pipeline in force, and tells the observers; shared by all connections.

    Requests that simply passed are told together, as a number, and with
    `tell_each` with the facts of each.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Callable[[], float],
        observe: Observer,
        confirm: Confirm | None = None,
        *,
        tell_each: bool = True,
    ) -> None:
        self.pipeline = pipeline
        self.clock = clock
        self.observe = observe
        self.confirm: Confirm = confirm or _nobody_to_ask
        self.debts = Debts()
        self._tell_each = tell_each

    def answer(self, requests: Sequence[Attributes]) -> Sequence[bytes | Owed]:
        """The replies to requests that came in together."""
        started, now = perf_counter(), self.clock()
        replies: list[bytes | Owed] = []
        rest = requests
        while (begun := len(replies)) < len(requests):
            # Whatever goes wrong on the express lane, goes wrong again on the long way, and is told there.
            with contextlib.suppress(Exception):
                self.pipeline.express(rest, replies, now)
            if passed := len(replies) - begun:
                facts = list(map(self.pipeline.facts, rest[:passed])) if self._tell_each else ()
                self.observe(Passed(passed, perf_counter() - started, facts))
            if len(replies) < len(requests):
                replies.append(self._decide(requests[len(replies)], now, started))
                rest = requests[len(replies) :]
        return replies

    def look_up(self, lookup: Lookup) -> bytes | Owed:
        """The answer to a lookup in a map."""
        found = self._found(lookup)
        if not isinstance(found, maps.Unconfirmed):
            return found

        def finish(confirmed: Match) -> bytes:
            return cast("bytes", self._found(lookup, confirmed))

        return self.debts.owe(partial(self.confirm, found.domain), finish)

    def _found(self, lookup: Lookup, confirmed: Match | None = None) -> bytes | maps.Unconfirmed:
        try:
            return maps.answer(lookup, self.pipeline.domains, confirmed)
        except Exception as error:  # noqa: BLE001 - whatever it is, Postfix gets its answer
            what = f"{type(error).__name__}: {error}"
            self.observe(Trouble("internal error, answered TEMP", what, "error"))
            return maps.FAILED

    def _decide(self, request: Attributes, now: float, started: float) -> bytes | Owed:
        """The long way."""
        try:
            facts = self.pipeline.facts(request)
            decision = self.pipeline.decide(facts, now)
            if decision.verdict == UNCONFIRMED:
                return self._ask_first(facts, started)
            self.observe(Decided(facts, decision, perf_counter() - started))
            return format_reply(decision.reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, Postfix gets its answer
            return self._fault(error)

    def _ask_first(self, facts: Facts, started: float) -> bytes | Owed:
        def finish(confirmed: Match) -> bytes:
            try:
                decision = self.pipeline.decide(facts, self.clock(), confirmed)
                self.observe(Decided(facts, decision, perf_counter() - started))
                return format_reply(decision.reply)
            except Exception as error:  # noqa: BLE001 - as above
                return self._fault(error)

        return self.debts.owe(partial(self.confirm, facts.recipient.domain), finish)

    def _fault(self, error: Exception) -> bytes:
        what = f"{type(error).__name__}: {error}"
        self.observe(Trouble("internal error, answered DUNNO", what, "error"))
        return PASSED


def _nobody_to_ask(_: str, resume: Callable[[Match], None]) -> None:
    resume(Match(State.FAILED))


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
        asked: list[PolicySession] = []
        requests: list[Attributes] = []
        for session, data in waiting:
            try:
                for request in session.read(data):
                    asked.append(session)
                    requests.append(request)
            except ProtocolError as error:
                session.refuse("policy protocol error", str(error))
        replies = self._answerer.answer(requests)
        if self._answerer.debts.open:
            for session, reply in zip(asked, replies, strict=True):
                session.answers.give(reply)
            return
        for session, reply in zip(asked, cast("Sequence[bytes]", replies), strict=True):
            try:
                session.transport.write(reply)
            except RuntimeError:  # uvloop's word for a connection that is gone; the others want theirs
                continue


class Session(asyncio.Protocol):
    """What policy and map connections have in common."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.transport: asyncio.Transport
        self.answers = Answers(self._write)

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

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)

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
