import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.domains.match import Match, State
from mxweir.events import Decided, Trouble
from mxweir.testing import Recorder, SettableClock
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.deferred import Owed
from mxweir_policyd.protocol import Request
from mxweir_policyd.session import PolicySession, Sessions
from mxweir_policyd.socketmap import Lookup
from mxweir_policyd.worker import build_pipeline

CONFIG = """
[[access]]
block = "helo"
value = "blocked"
reason = "Grüße, \\"and\\" \\\\ so on"

[[limit]]
name = "sender"
key = "sender"
rate = "1/day"
"""


class Table:
    """Knows nothing to be ours, or breaks."""

    def __init__(self, error: Exception | None = None, answer: State = State.NOT_OURS) -> None:
        self._error = error
        self._answer = answer

    ours: frozenset[str] = frozenset()

    def state(self, domain: str) -> State:
        if self._error:
            raise self._error
        return self._answer

    def find(self, domain: str) -> Match:
        return Match(self.state(domain))


def answerer(table: Any) -> tuple[Answerer, Recorder]:
    recorder = Recorder()
    return Answerer(build_pipeline(loads(CONFIG), table), SettableClock(), recorder), recorder


@given(st.builds(Request, **dict.fromkeys(Request._fields, st.binary(max_size=400))))
def test_whatever_is_asked_the_answer_is_one_line_of_printable_text(request: Request) -> None:
    made, _ = answerer(Table())
    for context in (request.policy_context, b"limits"):
        [reply] = made.answer([request._replace(policy_context=context, protocol_state=b"RCPT")])
        assert isinstance(reply, bytes)
        assert reply.startswith((b"action=DUNNO\n", b"action=550 5.", b"action=554 5."))
        assert reply.endswith(b"\n\n")
        assert reply[:-2].decode().isprintable()


def test_an_answer_is_told_to_the_observers_with_the_time_it_took() -> None:
    made, recorder = answerer(Table())
    made.answer([Request(recipient=b"x@foreign.example")])
    (event,) = recorder.events
    assert isinstance(event, Decided)
    assert event.decision.check == "relay"
    assert 0.0 <= event.seconds < 60.0


def test_a_fault_of_ours_is_answered_dunno_and_told() -> None:
    made, recorder = answerer(Table(RuntimeError("a fault")))
    assert made.answer([Request(recipient=b"anna@example.org")]) == [b"action=DUNNO\n\n"]
    assert recorder.events == [Trouble("internal error, answered DUNNO", "RuntimeError: a fault", "error")]


def test_a_question_that_waits_for_postgresql_is_told_to_the_observers_when_it_is_answered() -> None:
    asked: list[tuple[str, Callable[[Match], None]]] = []
    recorder = Recorder()
    pipeline = build_pipeline(loads(CONFIG), Table(answer=State.UNCONFIRMED))
    made = Answerer(
        pipeline, SettableClock(), recorder, lambda domain, resume: asked.append((domain, resume))
    )
    [owed] = made.answer([Request(recipient=b"x@new.example")])
    assert isinstance(owed, Owed)
    assert (owed.reply, recorder.events, made.debts.open) == (None, [], 1)
    [(domain, resume)] = asked
    resume(Match(State.NOT_OURS))
    assert (domain, made.debts.open) == ("new.example", 0)
    assert owed.reply == b"action=550 5.7.1 new.example: relay access denied\n\n"
    assert [event.decision.verdict for event in recorder.events if isinstance(event, Decided)] == ["reject"]


def test_without_anybody_to_ask_a_domain_that_is_unknown_here_gets_450() -> None:
    made = Answerer(
        build_pipeline(loads(CONFIG), Table(answer=State.UNCONFIRMED)), SettableClock(), Recorder()
    )
    [reply] = made.answer([Request(recipient=b"x@new.example")])
    assert isinstance(reply, bytes)
    assert reply.startswith(b"action=450 4.3.0 ")


def test_a_fault_in_a_lookup_is_a_temporary_failure_also_when_postgresql_was_asked_first() -> None:
    table = Table(answer=State.UNCONFIRMED)
    made, recorder = answerer(table)
    asked: list[Callable[[Match], None]] = []
    made.confirm = lambda _, resume: asked.append(resume)
    owed = made.look_up(Lookup("relay-domains", "a.example"))
    table._error = OSError("boom")
    asked[0](Match(State.OURS))
    assert isinstance(owed, Owed)
    assert (owed.reply, made.debts.open) == (b"19:TEMP internal error,", 0)
    assert made.look_up(Lookup("relay-domains", "a.example")) == owed.reply
    told = [event.what for event in recorder.events if isinstance(event, Trouble)]
    assert told == ["internal error, answered TEMP"] * 2


class Line:
    """A transport at one end of a connection, which keeps what it is given to send."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.given = b""
        self.closing = False

    def get_extra_info(self, _: str) -> socket.socket:
        return self._end

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.given += data


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def session(line: Any) -> PolicySession:
    made, _ = answerer(Table())
    connected = PolicySession(Sessions(5, made))
    connected.connection_made(line)
    return connected


def test_an_answer_is_sent_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    line = Line(ours)
    session(line).send(b"action=DUNNO\n\n")
    assert (theirs.recv(100), line.given) == (b"action=DUNNO\n\n", b"")


def test_what_there_is_no_room_for_is_left_to_the_transport_and_nothing_overtakes_it(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    line = Line(ours)
    asked = session(line)
    sent = b""
    while not line.given:
        part = b"%d " % len(sent) * 1000
        asked.send(part)
        sent += part
    received = theirs.recv(1_000_000)  # there is room again
    asked.send(b"the last")
    ours.shutdown(socket.SHUT_WR)
    while part := theirs.recv(1_000_000):
        received += part
    assert received + line.given == sent + b"the last"
    assert line.given.endswith(b"the last")


def test_nothing_is_sent_by_a_descriptor_that_may_be_another_connections_by_now(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    line = Line(ours)
    asked = session(line)
    line.closing = True
    asked.connection_lost(None)
    asked.send(b"late")
    ours.shutdown(socket.SHUT_WR)
    assert (theirs.recv(100), line.given) == (b"", b"")
