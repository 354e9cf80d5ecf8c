"""What one connection of the mail server is answered: commands in, packets out; no socket and no loop.

Between the two stands a `Session`, which decides. Scanning is the caller's: a
`Wanted` that comes back from `take` is to be scanned, and `conclude` makes the
answer of the result.

A fault of ours must cost a scan, never a message. Each step catches whatever its
session raises, reports it and has the message come out unscanned; at the end of a
message, where an answer is due, a second attempt is made with that, and then a
plain accept.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from mxweir.events import Event, Observer, Scanned, Trouble
from mxweir_milter import facts
from mxweir_milter.changes import Answer
from mxweir_milter.facts import text_of
from mxweir_milter.fronts import codec, replies
from mxweir_milter.fronts.codec import ProtocolError
from mxweir_milter.fronts.macros import Defined
from mxweir_milter.fronts.options import Action, Stage, Step, agree
from mxweir_milter.session import Concluded, Session, Wanted
from mxweir_milter.verdict import Failed, Outcome, Reason, Result

_ACTIONS = Action.ADD_HEADERS | Action.CHANGE_HEADERS | Action.QUARANTINE | Action.SET_SYMBOL_LIST

_NO_REPLY = (
    Step.NO_REPLY_CONNECT
    | Step.NO_REPLY_HELO
    | Step.NO_REPLY_MAIL
    | Step.NO_REPLY_RCPT
    | Step.NO_REPLY_DATA
    | Step.NO_REPLY_HEADER
    | Step.NO_REPLY_END_OF_HEADER
    | Step.NO_REPLY_BODY
)
"""Steps that Postfix need not wait for us at.

At most of them a session has nothing to say. At DATA and at a piece of the body it
could say that no more is wanted, of a message that is passed over or too large; but
few messages are, and to wait there costs all of them more than it saves with those.
"""

_STEPS = _NO_REPLY | Step.NO_END_OF_HEADER | Step.NO_UNKNOWN | Step.SKIP | Step.HEADER_LEADING_SPACE

_NO_MACRO = ("{none}",)
"""One that nobody defines: Postfix takes an empty list for "the usual ones" (milter.c, MILTER_MACRO_EVAL)."""

_SYMBOLS = {
    Stage.CONNECT: facts.CONNECT_MACROS,
    Stage.HELO: facts.HELO_MACROS,
    Stage.MAIL: facts.MAIL_MACROS,
    Stage.RCPT: _NO_MACRO,
    Stage.DATA: facts.DATA_MACROS,
    # Its macros come before each header field.
    Stage.END_OF_HEADER: _NO_MACRO,
    # And these before each piece of the body. Whoever takes this list says DATA, and has told all there.
    Stage.END: _NO_MACRO,
}
"""What a session reads; nothing else need be sent, whatever main.cf says."""

# As plain numbers: the operators of IntFlag are slow, and there is one for each header field.
_NO_REPLY_DATA = Step.NO_REPLY_DATA.value
_SKIP = Step.SKIP.value
_LEADING_SPACE = Step.HEADER_LEADING_SPACE.value
_ADD_HEADERS = Action.ADD_HEADERS.value
_CHANGE_HEADERS = Action.CHANGE_HEADERS.value
_QUARANTINE = Action.QUARANTINE.value


class Spoken(NamedTuple):
    """The answer to a message, and what to tell once it was heard; None where even that has failed."""

    packets: bytes
    event: Scanned | None


_Step = Callable[["Dialogue", Any], bytes | None]
_Taken = tuple[str, bool, _Step]
"""Of one kind of command: the step's name, whether it is answered, and what is done."""


class Dialogue:
    """The state of one connection."""

    def __init__(self, new_session: Callable[[], Session], observe: Observer) -> None:
        self._new_session = new_session
        self._observe = observe
        self._session = new_session()
        self._macros = Defined()
        self._actions = 0
        self._steps = 0
        self._taken: Mapping[type, _Taken] = {}

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and is not answered."""
        return self._session.in_message

    def take(self, command: codec.Command) -> bytes | Wanted | Spoken | None:
        """What to send (often nothing), what to scan, or the answer to a message; None: the session is over.

        Raises ProtocolError for what may not come first.
        """
        taken = self._taken.get(type(command))
        if taken is None:
            if isinstance(command, codec.End) and self._taken:
                return self._end(command)
            return self._negotiate(command)
        name, is_answered, step = taken
        try:
            reply = step(self, command)
        except Exception as error:  # noqa: BLE001 -- a fault of ours must cost a scan, never a message
            self._fault(name, error)
            goes_on = isinstance(command, codec.Body) and not command.ends
            reply = b"" if goes_on else replies.CONTINUE
        return reply if is_answered else b""

    def conclude(self, result: Result) -> Spoken:
        """The answer to the message that was wanted."""
        try:
            concluded = self._session.conclude(result)
        except Exception as error:  # noqa: BLE001
            return self.conclude_unscanned(error)
        return self._spoken(concluded)

    def conclude_unscanned(self, error: BaseException) -> Spoken:
        """The answer to it after a fault: unscanned, or failing that, accepted as it is."""
        self._fault("end of message", error)
        try:
            concluded = self._session.conclude(Failed(Reason.INTERNAL))
        except Exception as again:  # noqa: BLE001
            self._fault("end of message", again)
            self.close()
            return Spoken(replies.ACCEPT, None)
        return self._spoken(concluded)

    def abandon(self) -> None:
        """Nobody waits for the message any more that was wanted."""
        try:
            event = self._session.conclude(Failed(Reason.UNHEARD)).event
        except Exception as error:  # noqa: BLE001
            self._fault("abort", error)
        else:
            self.unheard(event)

    def close(self) -> None:
        """Keep nothing of a message in hand: the connection is gone, or all else has failed."""
        with contextlib.suppress(Exception):
            self._session.abort()

    def heard(self, event: Scanned | None) -> None:
        """The answer was sent."""
        if event is not None:
            self.tell(event)

    def unheard(self, event: Scanned | None) -> None:
        """The mail server has gone on without us: do not claim a verdict that nobody heard."""
        if event is not None:
            self.tell(Trouble("answer not heard", event.queue_id))
            self.tell(_as_unheard(event))

    def tell(self, event: Event) -> None:
        """Log and count; a log that fails (a full disk) changes nothing for the mail."""
        with contextlib.suppress(Exception):
            self._observe(event)

    # The commands

    def _negotiate(self, command: codec.Command) -> bytes:
        if not isinstance(command, codec.Negotiate):
            raise ProtocolError("the first command is no negotiation")
        self._actions, self._steps, answer = _negotiated(command)
        self._taken = self._at(self._steps)
        return answer

    def _define(self, command: codec.Define) -> bytes:
        self._macros.define(command.command, command.macros)
        return b""

    def _connect(self, command: codec.Connect) -> bytes:
        address = text_of(command.address) if command.family in (b"4", b"6") else ""
        self._session.connect(text_of(command.name), address, self._macros.all())
        return replies.CONTINUE

    def _helo(self, command: codec.Helo) -> bytes:
        self._session.helo(text_of(command.name), self._macros.all())
        return replies.CONTINUE

    def _mail(self, command: codec.Mail) -> bytes:
        self._session.mail(command.sender, command.parameters, self._macros.all())
        return replies.CONTINUE

    def _rcpt(self, command: codec.Rcpt) -> bytes:
        self._session.rcpt(command.recipient)
        return replies.CONTINUE

    def _data(self, _: codec.Data) -> bytes:
        heard = not self._can(_NO_REPLY_DATA)
        concluded = self._session.data(self._macros.all(), heard=heard)
        if concluded is None:
            return replies.CONTINUE
        self._macros.forget_message()
        self.tell(concluded.event)
        return replies.ACCEPT

    def _header(self, command: codec.Header) -> bytes:
        name, value = command
        self._session.header(name, value if self._steps & _LEADING_SPACE else b" " + value)
        return replies.CONTINUE

    def _body(self, command: codec.Body) -> bytes:
        piece, ends = command
        wanted = self._session.body(piece)
        if not ends:
            return b""
        return replies.CONTINUE if wanted or not self._can(_SKIP) else replies.SKIP

    def _nothing(self, _: codec.Command) -> bytes:
        return replies.CONTINUE

    def _abort(self, _: codec.Abort) -> bytes:
        self._macros.forget_message()
        self._session.abort()
        return b""

    def _quit(self, command: codec.Quit) -> bytes | None:
        self._session.abort()
        if not command.reuse:
            return None
        self._session, self._macros = self._new_session(), Defined()
        return b""

    _STEP_OF: ClassVar[Mapping[type, tuple[str, int, _Step]]] = {
        codec.Define: ("define", 0, _define),
        codec.Connect: ("connect", Step.NO_REPLY_CONNECT.value, _connect),
        codec.Helo: ("helo", Step.NO_REPLY_HELO.value, _helo),
        codec.Mail: ("mail", Step.NO_REPLY_MAIL.value, _mail),
        codec.Rcpt: ("rcpt", Step.NO_REPLY_RCPT.value, _rcpt),
        codec.Data: ("data", Step.NO_REPLY_DATA.value, _data),
        codec.Header: ("header", Step.NO_REPLY_HEADER.value, _header),
        codec.EndOfHeader: ("end of header", Step.NO_REPLY_END_OF_HEADER.value, _nothing),
        codec.Body: ("body", Step.NO_REPLY_BODY.value, _body),
        codec.Unknown: ("unknown command", Step.NO_REPLY_UNKNOWN.value, _nothing),
        codec.Abort: ("abort", 0, _abort),
        codec.Quit: ("quit", 0, _quit),
    }
    """By command: the step's name, the bit that says that no answer is wanted, and what is done."""

    @classmethod
    @lru_cache(8)
    def _at(cls, steps: int) -> Mapping[type, _Taken]:
        """What is done with commands where these steps were agreed on."""
        return {kind: (name, not steps & silent, step) for kind, (name, silent, step) in cls._STEP_OF.items()}

    def _end(self, command: codec.End) -> Wanted | Spoken:
        try:
            if command.piece:
                self._session.body(command.piece)
            step = self._session.end(self._macros.all())
        except Exception as error:  # noqa: BLE001
            return self.conclude_unscanned(error)
        return step if isinstance(step, Wanted) else self._spoken(step)

    def _spoken(self, concluded: Concluded) -> Spoken:
        self._macros.forget_message()
        answer, event = concluded
        if answer.hold and not self._actions & _QUARANTINE:
            event = _as_not_held(event)
        try:
            return Spoken(b"".join(self._packets(answer)), event)
        except Exception as error:  # noqa: BLE001
            self._fault("answer", error)
            return Spoken(replies.ACCEPT, _as_unheard(event))

    def _packets(self, answer: Answer) -> Iterator[bytes]:
        """The answer in Postfix's order; what was not agreed on cannot be asked for."""
        if reply := answer.reply:
            yield replies.reply(reply.code, reply.enhanced, reply.text)
            return
        space = b" " if self._can(_LEADING_SPACE) else b""
        if self._actions & _CHANGE_HEADERS:
            for name, instance in answer.remove:
                yield replies.change_header(instance, name.encode(), b"")
            for name, instance, value in answer.change:
                yield replies.change_header(instance, name.encode(), space + value.encode())
        if self._actions & _ADD_HEADERS:
            for name, value in answer.add:
                yield replies.add_header(name.encode(), space + value.encode())
        if answer.hold and self._actions & _QUARANTINE:
            yield replies.quarantine(answer.hold)
        yield replies.ACCEPT

    def _can(self, step: int) -> bool:
        return bool(self._steps & step)

    def _fault(self, step: str, error: BaseException) -> None:
        self.tell(Trouble(f"internal error at {step}", repr(error), "error"))
        with contextlib.suppress(Exception):
            self._session.fail(step)


@lru_cache(8)
def _negotiated(offer: codec.Negotiate) -> tuple[int, int, bytes]:
    """The actions and steps agreed on, and the answer; a mail server makes the same offer each time."""
    options = agree(offer, _ACTIONS, _STEPS)
    symbols = _SYMBOLS if Action.SET_SYMBOL_LIST in options.actions else {}
    return options.actions.value, options.steps.value, replies.negotiate(options, symbols)


def _as_not_held(event: Scanned) -> Scanned:
    """What becomes of a message that was to be held, where the mail server cannot do that."""
    outcome = Outcome.TAGGED if event.outcome == Outcome.QUARANTINED else event.outcome
    return event._replace(outcome=outcome, action="")


def _as_unheard(event: Scanned) -> Scanned:
    return event._replace(outcome=Outcome.UNSCANNED, reason=Reason.UNHEARD, action="")
