"""A connection of the mail server on a socket of ours; what is read and what is said is a subclass's.

Postfix connects anew for each SMTP session, and most of those bring one message. A
transport of the event loop costs as much to make and to close as it costs to read
and answer all of them.
"""

import socket

from mxweir_milter.sockets import READABLE, WRITABLE, Sockets

_PIECE = 120_000
"""Bytes that are read at once: little enough that malloc(3) takes no memory from the system each time."""

_NOW = socket.MSG_DONTWAIT


class Connection:
    """Is made for an accepted socket, which is its own from then on."""

    def __init__(self, sockets: Sockets, connection: socket.socket) -> None:
        self._sockets = sockets
        self._socket = connection
        self._unsent = bytearray()
        self._closing = False
        self._is_tcp = connection.family != socket.AF_UNIX
        if self._is_tcp:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = True
        sockets.watch(connection.fileno(), READABLE, self._ready)

    def hear(self, data: bytes) -> None:
        """Take what the mail server says."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is closed, from whichever side; told once."""
        raise NotImplementedError

    @property
    def unsent(self) -> int:
        """Bytes that were said and that the other side has yet to make room for."""
        return len(self._unsent)

    def read(self) -> None:
        """Take what is there."""
        if self._is_tcp:
            # Where a step has no reply, our kernel would keep its acknowledgement for 40 ms, and the mail
            # server's the next step until it comes (Nagle). Linux forgets this option by and by: tcp(7).
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        try:
            data = self._socket.recv(_PIECE, _NOW)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.abort()
            return
        try:
            self.hear(data)
        except BaseException:
            self.abort()
            raise

    def send(self, data: bytes) -> None:
        """Send now what there is room for, and the rest, and all that follows, as room comes."""
        sent = 0 if self._unsent else self._send_now(data)
        if sent < len(data) and self.is_open:
            if not self._unsent:
                self._sockets.change(self._socket.fileno(), READABLE | WRITABLE)
            self._unsent += data[sent:]

    def close(self) -> None:
        """Hear no more, and end it once what was said is sent."""
        if not self._unsent:
            self.abort()
        elif self.is_open:
            self._closing = True
            self._sockets.change(self._socket.fileno(), WRITABLE)

    def abort(self) -> None:
        """End it at once."""
        if self.is_open:
            self.is_open = False
            self._sockets.forget(self._socket.fileno())
            self._socket.close()
            self._unsent.clear()
            self.lost()

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            self._send_rest()
        if events & ~WRITABLE and self.is_open:
            if self._closing:  # it is gone, or it would not be told
                self.abort()
            else:
                self.read()

    def _send_rest(self) -> None:
        del self._unsent[: self._send_now(self._unsent)]
        if self._closing:
            self.close()
        elif self.is_open and not self._unsent:
            self._sockets.change(self._socket.fileno(), READABLE)

    def _send_now(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data, _NOW)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return 0
