"""The front on asyncio: sessions and scans on one loop; no thread, no library.

Postfix opens a connection for each SMTP session and waits for an answer to what
it says, unless it was agreed that none is needed. So a connection has at most one
scan under way. Meanwhile it is still read: whoever hangs up or aborts no longer
waits for the verdict, and the scan is cancelled.

The deadline is the scanner's to keep. Should it not, the front answers without it
a moment later.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from mxweir.config import Milter
from mxweir.deadline import Deadline
from mxweir.events import Observer, Trouble
from mxweir.serving import Listening
from mxweir_milter.alarms import Alarm, Alarms
from mxweir_milter.fronts import codec, replies
from mxweir_milter.fronts.codec import CommandReader, ProtocolError
from mxweir_milter.fronts.connection import Connection
from mxweir_milter.fronts.dialogue import Dialogue, Spoken
from mxweir_milter.message import Message
from mxweir_milter.session import Session, Wanted
from mxweir_milter.sockets import Sockets
from mxweir_milter.verdict import Failed, Reason, Result

Scan = Callable[[Message, Deadline], Coroutine[Any, Any, Result]]

_GRACE = 0.05
"""Seconds that the scanner gets to keep the deadline itself, with the better reason."""

_PROGRESS = 3.0
"""Seconds between two signs to a waiting mail server: below the least timeout that anybody sets."""

_UNSENT = 2**20
"""Bytes of answers that a peer may leave unread; the longest honest one has some kilobytes."""

_CLOSING = 1.0
"""Seconds in which the last answers are written out at a stop."""


class AsyncioFront:
    """Serves the configured address and whatever socket the service manager hands over."""

    def __init__(
        self,
        settings: Milter,
        new_session: Callable[[], Session],
        scan: Scan,
        observe: Observer,
        sockets: Sockets | None = None,
    ) -> None:
        self._settings = settings
        self._listening: Listening | None = None
        self._ended = asyncio.Event()
        self.new_session = new_session
        self.scan = scan
        self.observe = observe
        self.sockets = sockets or Sockets()
        self.peers: set[Peer] = set()
        self.alarms = Alarms()

    async def open(self) -> None:
        """Listen and begin to serve; raises ServiceError."""
        settings = self._settings
        self._listening = Listening(["milter"], settings.socket_mode, settings.socket_group)
        self._listening.hand_on("milter", [settings.listen], self._take, self.observe)

    @property
    def ended(self) -> bool:
        """Never: there is nothing here that could end by itself."""
        return False

    @property
    def failed(self) -> bool:
        """Never, either."""
        return False

    def refuse_new(self) -> None:
        """Take no new sessions: they wait in the service manager's socket, or find nobody at ours."""
        if self._listening is not None:
            self._listening.close()

    def close_idle(self) -> None:
        """End the sessions that have no message in hand."""
        for peer in list(self.peers):
            if not peer.in_message:
                peer.close()

    async def stop(self) -> None:
        """Answer what is still being scanned as unscanned, and end all sessions."""
        self.refuse_new()
        for peer in list(self.peers):
            peer.give_up("mxweir stops")
            peer.close()
        if self.peers:
            await asyncio.wait([asyncio.ensure_future(self._ended.wait())], timeout=_CLOSING)

    def sessions(self) -> int:
        """Sessions of the mail server that are open."""
        return len(self.peers)

    def in_hand(self) -> int:
        """Messages that have begun and are not answered; may be asked from any thread."""
        return sum(peer.in_message for peer in list(self.peers))

    def let_go(self, peer: "Peer") -> None:
        """Forget a connection."""
        self.peers.discard(peer)
        if not self.peers:
            self._ended.set()

    def _take(self, connection: socket.socket) -> None:
        if len(self.peers) >= self._settings.max_sessions:
            self.observe(Trouble("too many sessions", f"max_sessions = {self._settings.max_sessions}"))
            connection.close()
            return
        peer = Peer(self, connection)
        self.peers.add(peer)
        self._ended.clear()
        # Who connects speaks first, and mostly has by now.
        peer.read()


class Peer(Connection):
    """One connection of the mail server, and the message that it has in hand."""

    def __init__(self, front: AsyncioFront, connection: socket.socket) -> None:
        super().__init__(front.sockets, connection)
        self._front = front
        self._reader = CommandReader()
        self._dialogue = Dialogue(front.new_session, front.observe)
        self._unread = False
        self._scan: asyncio.Task[None] | None = None
        self._deadline: Deadline
        self._alarm: Alarm | None = None

    def hear(self, data: bytes) -> None:
        """Do what the mail server says."""
        if self._unread:
            self._unread = self.unsent > _UNSENT
        take = self._dialogue.take
        try:
            for command in self._reader.feed(data):
                if self._scan is not None or self._unread:
                    self._interrupt(command)
                if said := take(command):
                    self._act(said)
                    if not self.is_open:
                        return
                elif said is None:
                    self.close()
                    return
        except ProtocolError as error:
            self._front.observe(Trouble("milter protocol error", f"{error}; connection closed"))
            self.abort()

    def lost(self) -> None:
        """Forget the connection, and stop working for it."""
        self._abandon()
        self._dialogue.close()
        self._front.let_go(self)

    # What the front calls

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and is not answered."""
        return self._dialogue.in_message

    def give_up(self, why: str) -> None:
        """Answer a message that is being scanned without its verdict."""
        if self._drop_scan():
            self._speak(self._dialogue.conclude(Failed(Reason.DEADLINE, detail=why)))

    # A message

    def _act(self, said: bytes | Wanted | Spoken) -> None:
        if isinstance(said, Wanted):
            self._begin_scan(said)
        elif isinstance(said, Spoken):
            self._speak(said)
        else:
            self._say(said)

    def _interrupt(self, command: codec.Command) -> None:
        """What comes before all was answered, and read: the end of it, or a ProtocolError."""
        if isinstance(command, codec.Abort | codec.Quit):
            self._abandon()
        elif self._scan is not None:
            raise ProtocolError(f"{type(command).__name__} before the end of a message was answered")
        else:
            raise ProtocolError("the peer asks and does not read its answers")

    def _begin_scan(self, wanted: Wanted) -> None:
        self._deadline = wanted.deadline
        self._scan = self._front.sockets.loop.create_task(self._answer(wanted))
        self._wait_on()

    async def _answer(self, wanted: Wanted) -> None:
        """Scan, and answer if that is still waited for."""
        mine = self._scan
        result: Result | Exception
        try:
            result = await self._front.scan(wanted.message, wanted.deadline)
        except asyncio.CancelledError:
            result = Failed(Reason.INTERNAL, detail="the scan was cancelled")
        except Exception as error:  # noqa: BLE001 -- a fault of ours must cost a scan, never a message
            result = error
        if self._scan is not mine:
            return
        self._end_wait()
        if isinstance(result, Exception):
            self._speak(self._dialogue.conclude_unscanned(result))
        else:
            self._speak(self._dialogue.conclude(result))

    def _wait_on(self) -> None:
        seconds = min(_PROGRESS, self._deadline.left() + _GRACE)
        self._alarm = self._front.alarms.after(seconds, self._still_waiting)

    def _still_waiting(self) -> None:
        if self._deadline.left() > 0:
            self._wait_on()
            self._say(replies.PROGRESS)  # which may be what shows that nobody waits any more
        else:
            self.give_up("the scanner did not keep it")

    def _end_wait(self) -> "asyncio.Task[None] | None":
        """Wait for no scan any more; the one under way, if there is one."""
        scan, self._scan = self._scan, None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return scan

    def _drop_scan(self) -> bool:
        """Cancel the scan under way; whether there was one."""
        scan = self._end_wait()
        if scan is not None:
            scan.cancel()
        return scan is not None

    def _abandon(self) -> None:
        """Nobody waits for the verdict any more."""
        if self._drop_scan():
            self._dialogue.abandon()

    def _speak(self, spoken: Spoken) -> None:
        self._say(spoken.packets)
        if self.is_open:
            self._dialogue.heard(spoken.event)
        else:
            self._dialogue.unheard(spoken.event)

    def _say(self, packets: bytes) -> None:
        self.send(packets)
        # As long as it asks nothing more, what a peer leaves unread is its own business.
        self._unread = self.unsent > _UNSENT
