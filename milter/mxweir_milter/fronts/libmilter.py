"""The front on libmilter by way of pymilter. Nothing else imports Milter.

libmilter calls back on threads of its own, now this one and now that one for the
same session, so that whatever belongs to a session hangs on its context and never
on a thread. It is driven through pymilter's plain functions: the class
`Milter.Base` adds its own decoding of what the client sent, and `@symlist`,
which silently switches off all negotiation on Python 3.

Three layers keep a fault of ours from touching mail. Each step catches whatever
its session raises, reports it and has the message come out unscanned. At the end
of a message, where an answer is due, a second attempt is made with that, and then
a plain accept. And what pymilter itself cannot hand over (a HELO that is no
UTF-8) is, by the exception policy, passed over.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol, cast

import Milter

from mxweir import service
from mxweir.config import Milter as Settings
from mxweir.deadline import Deadline
from mxweir.endpoint import Endpoint, Unix
from mxweir.events import Event, Observer, Scanned, Trouble
from mxweir.threads import in_thread
from mxweir_milter import facts
from mxweir_milter.changes import Answer
from mxweir_milter.fronts.door import Door
from mxweir_milter.message import Message
from mxweir_milter.session import Concluded, Session, Wanted
from mxweir_milter.verdict import Failed, Outcome, Reason, Result

_ACTIONS = Milter.ADDHDRS | Milter.CHGHDRS | Milter.QUARANTINE

_NO_REPLY = (
    Milter.P_NR_CONN
    | Milter.P_NR_HELO
    | Milter.P_NR_MAIL
    | Milter.P_NR_RCPT
    | Milter.P_NR_HDR
    | Milter.P_NR_EOH
)
"""Steps that Postfix need not wait for us at: a session has nothing to say there.

At DATA and the body it may have, and whether the mail server can do without an answer
there, libmilter does not tell: where it cannot, libmilter makes up one itself.
"""

_PROTOCOL = _NO_REPLY | Milter.P_NOUNKNOWN | Milter.P_SKIP | Milter.P_HDR_LEADSPC

_NO_SOCKET = (
    'milter.front = "libmilter" cannot serve a socket of the service manager; '
    'use "asyncio", or: systemctl mask --now mxweir-milter.socket'
)

_LOOKS_UP = 6.0
"""Seconds in which libmilter's listener notices by itself that it shall stop; knocking makes it look now."""


class Context(Protocol):
    """What is used of pymilter's context of one connection."""

    def getsymval(self, sym: str) -> str | None:
        """A macro's value."""

    def setreply(self, rcode: str, xcode: str, text: str) -> None:
        """The SMTP reply for the refusal that is returned next."""

    def addheader(self, field: str, value: str) -> None:
        """Append a header field; raises Milter.error when Postfix is gone."""

    def chgheader(self, field: str, idx: int, value: str | None) -> None:
        """Change an instance of a header field, or remove it."""

    def quarantine(self, reason: str) -> None:
        """Have the message held."""

    def setpriv(self, value: object) -> object:
        """Attach an object of ours."""

    def getpriv(self) -> object:
        """The object of ours, or None."""


@dataclass(slots=True, eq=False)
class _Peer:
    """One connection of the mail server; `protocol` is what was negotiated with it."""

    session: Session
    protocol: int = 0
    answering: bool = False

    def no_reply(self, step: int) -> int:
        """What a step returns that has nothing to say."""
        return Milter.NOREPLY if self.protocol & step else Milter.CONTINUE


class LibmilterFront:
    """Serves one address; there can be one in a process, because libmilter's state is global."""

    def __init__(
        self,
        settings: Settings,
        new_session: Callable[[], Session],
        scan: Callable[[Message, Deadline], Result],
        observe: Observer,
    ) -> None:
        self._settings = settings
        self._listen = listen = settings.listen
        self._new_session = new_session
        self._scan = scan
        self._observe = observe
        self._peers: set[_Peer] = set()
        self._thread = threading.Thread(target=self._main, name="libmilter", daemon=True)
        self._door = Door(listen)
        self.ended = self.failed = False

    # What the daemon calls

    async def open(self) -> None:
        """Listen, and begin to serve on libmilter's threads; raises ServiceError."""
        if service.inherited():
            raise service.SettingError(_NO_SOCKET)
        self._register()
        settings = self._settings
        try:
            self._door.open(lambda: Milter.opensocket(False), settings.socket_mode, settings.socket_group)
        except (Milter.error, OSError) as error:
            raise service.ServiceError(f"cannot listen at {self._listen}: {error}") from error
        self._thread.start()

    def refuse_new(self) -> None:
        """No new sessions: Postfix finds nobody at the address. Those that are open go on."""
        self._door.unlink()

    def close_idle(self) -> None:
        """Nothing: libmilter has no way to end a session; they are cut off when the process ends."""

    async def stop(self) -> None:
        """Stop serving; sessions still open are cut off when the process ends."""
        await in_thread(self._stop)

    def _stop(self) -> None:
        if self._thread.is_alive():
            # It waits for a lock that the listener holds while it sleeps: hence a thread, and the knocking.
            threading.Thread(target=Milter.stop, name="stop", daemon=True).start()
        until = monotonic() + _LOOKS_UP
        while self._thread.is_alive() and monotonic() < until:
            self._door.knock()
            self._thread.join(0.05)
        self._door.close()

    def sessions(self) -> int:
        """Connections of the mail server that are open."""
        return len(self._peers)

    def in_hand(self) -> int:
        """Messages that have begun and are not answered."""
        return sum(peer.answering or peer.session.in_message for peer in list(self._peers))

    # libmilter's life

    def _register(self) -> None:
        Milter.set_exception_policy(Milter.CONTINUE)
        Milter.set_flags(_ACTIONS)
        Milter.set_connect_callback(self._connect)
        Milter.set_helo_callback(self._helo)
        Milter.set_envfrom_callback(self._mail)
        Milter.set_envrcpt_callback(self._rcpt)
        Milter.set_header_callback(self._header)
        Milter.set_eoh_callback(self._eoh)
        Milter.set_body_callback(self._body)
        Milter.set_eom_callback(self._end)
        Milter.set_abort_callback(self._abort)
        Milter.set_close_callback(self._close)
        Milter.register("mxweir", data=self._data, negotiate=self._negotiate)
        Milter.setconn(_connection(self._listen))
        Milter.setbacklog(service.BACKLOG)

    def _main(self) -> None:
        try:
            Milter.main()
        except Exception as error:  # noqa: BLE001 -- whatever ends libmilter ends the daemon, with a line
            self._tell(Trouble("libmilter ended", str(error), "error"))
            self.failed = True
        # Without an error it was told to: it waits for SIGTERM itself (sigwait), and may get it before us.
        self.ended = True

    # libmilter's callbacks

    def _negotiate(self, ctx: Context, offered: list[int]) -> int:
        try:
            peer = self._peer(ctx)
            peer.protocol = offered[1] & _PROTOCOL
            offered[0] &= _ACTIONS
            offered[1:] = [peer.protocol, 0, 0]
        except Exception as error:  # noqa: BLE001
            self._report("negotiate", error)
            return Milter.ALL_OPTS
        return Milter.CONTINUE

    def _connect(self, ctx: Context, name: str, family: int, address: Any) -> int:
        def step(peer: _Peer) -> int:
            text = str(address[0]) if family in (socket.AF_INET, socket.AF_INET6) else ""
            peer.session.connect(name, text, _macros(ctx, facts.CONNECT_MACROS))
            return peer.no_reply(Milter.P_NR_CONN)

        return self._step(ctx, "connect", step)

    def _helo(self, ctx: Context, name: str) -> int:
        def step(peer: _Peer) -> int:
            peer.session.helo(name, _macros(ctx, facts.HELO_MACROS))
            return peer.no_reply(Milter.P_NR_HELO)

        return self._step(ctx, "helo", step)

    def _mail(self, ctx: Context, sender: bytes, *params: bytes) -> int:
        def step(peer: _Peer) -> int:
            peer.session.mail(sender, params, _macros(ctx, facts.MAIL_MACROS))
            return peer.no_reply(Milter.P_NR_MAIL)

        return self._step(ctx, "mail", step)

    def _rcpt(self, ctx: Context, recipient: bytes, *_: bytes) -> int:
        def step(peer: _Peer) -> int:
            peer.session.rcpt(recipient)
            return peer.no_reply(Milter.P_NR_RCPT)

        return self._step(ctx, "rcpt", step)

    def _data(self, ctx: Context) -> int:
        def step(peer: _Peer) -> int:
            concluded = peer.session.data(_macros(ctx, facts.DATA_MACROS))
            if concluded is None:
                return Milter.CONTINUE
            self._tell(concluded.event)
            return Milter.ACCEPT

        return self._step(ctx, "data", step)

    def _header(self, ctx: Context, name: str, value: bytes) -> int:
        def step(peer: _Peer) -> int:
            whole = value if peer.protocol & Milter.P_HDR_LEADSPC else b" " + value
            peer.session.header(name.encode("utf-8", "replace"), whole)
            return peer.no_reply(Milter.P_NR_HDR)

        return self._step(ctx, "header", step)

    def _eoh(self, ctx: Context) -> int:
        """Nothing to do, yet it must be there: without this step libmilter never answers an empty message."""
        return self._step(ctx, "end of header", lambda peer: peer.no_reply(Milter.P_NR_EOH))

    def _body(self, ctx: Context, piece: bytes) -> int:
        def step(peer: _Peer) -> int:
            wanted = peer.session.body(piece)
            return Milter.CONTINUE if wanted or not peer.protocol & Milter.P_SKIP else Milter.SKIP

        return self._step(ctx, "body", step)

    def _end(self, ctx: Context) -> int:
        def step(peer: _Peer) -> int:
            peer.answering = True
            try:
                return self._answer(ctx, peer)
            finally:
                peer.answering = False

        return self._step(ctx, "end of message", step, Milter.ACCEPT)

    def _abort(self, ctx: Context) -> int:
        def step(peer: _Peer) -> int:
            peer.session.abort()
            return Milter.CONTINUE

        return self._step(ctx, "abort", step)

    def _close(self, ctx: Context) -> int:
        peer = cast("_Peer | None", ctx.getpriv())
        if peer is not None:
            self._peers.discard(peer)
            with contextlib.suppress(Exception):
                peer.session.abort()
        ctx.setpriv(None)
        return Milter.CONTINUE

    # How they work

    def _peer(self, ctx: Context) -> _Peer:
        """The session of a context; made at its first callback."""
        peer = cast("_Peer | None", ctx.getpriv())
        if peer is None:
            peer = _Peer(self._new_session())
            ctx.setpriv(peer)
            self._peers.add(peer)
        return peer

    def _step(
        self, ctx: Context, name: str, step: Callable[[_Peer], int], otherwise: int = Milter.CONTINUE
    ) -> int:
        peer = None
        try:
            peer = self._peer(ctx)
            return step(peer)
        except BaseException as error:  # noqa: BLE001 -- a fault of ours must cost a scan, never a message
            self._report(name, error)
        if peer is not None:
            with contextlib.suppress(Exception):
                peer.session.fail(name)
        return otherwise

    def _report(self, step: str, error: BaseException) -> None:
        self._tell(Trouble(f"internal error at {step}", repr(error), "error"))

    def _tell(self, event: Event) -> None:
        """Log and count; a log that fails (a full disk) changes nothing for the mail."""
        with contextlib.suppress(Exception):
            self._observe(event)

    def _answer(self, ctx: Context, peer: _Peer) -> int:
        try:
            concluded = self._conclude(ctx, peer.session)
        except Exception as error:  # noqa: BLE001
            self._report("end of message", error)
            peer.session.fail()
            concluded = peer.session.conclude(Failed(Reason.INTERNAL))
        event = concluded.event
        try:
            return self._apply(ctx, concluded.answer, " " if peer.protocol & Milter.P_HDR_LEADSPC else "")
        except Milter.error as error:
            # Postfix has gone on without us: do not claim a verdict that nobody heard.
            event = _unheard(event)
            self._tell(Trouble("answer not heard", f"{event.queue_id}: {error}"))
            return Milter.ACCEPT
        except Exception as error:  # noqa: BLE001
            event = _unheard(event)
            self._report("answer", error)
            return Milter.ACCEPT
        finally:
            self._tell(event)

    def _conclude(self, ctx: Context, session: Session) -> Concluded:
        step = session.end(_macros(ctx, facts.END_MACROS))
        if isinstance(step, Wanted):
            return session.conclude(self._scan(step.message, step.deadline))
        return step

    def _apply(self, ctx: Context, answer: Answer, space: str) -> int:
        if reply := answer.reply:
            ctx.setreply(reply.code, reply.enhanced, reply.text)
            return Milter.REJECT if reply.permanent else Milter.TEMPFAIL
        for name, instance in answer.remove:
            ctx.chgheader(name, instance, None)
        for name, instance, value in answer.change:
            ctx.chgheader(name, instance, space + value)
        for name, value in answer.add:
            ctx.addheader(name, space + value)
        if answer.hold:
            ctx.quarantine(answer.hold)
        return Milter.ACCEPT


def _macros(ctx: Context, names: Sequence[str]) -> facts.Macros:
    """The macros that are there; one that is no UTF-8 makes pymilter raise, and is not there."""
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(UnicodeError):
            if value := ctx.getsymval(name):
                found[name] = value
    return found


def _connection(listen: Endpoint) -> str:
    """An address as smfi_setconn wants it."""
    if isinstance(listen, Unix):
        return f"unix:{listen.path}"
    return f"{'inet6' if ':' in listen.host else 'inet'}:{listen.port}@{listen.host}"


def _unheard(event: Scanned) -> Scanned:
    return event._replace(outcome=Outcome.UNSCANNED, reason=Reason.UNHEARD, action="")
