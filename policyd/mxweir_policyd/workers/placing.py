"""Which worker gets a connection: the one that has fewest, and of those the one that had fewest so far."""

import socket
from collections.abc import Callable, Iterable

from mxweir.events import Observer, Trouble
from mxweir_policyd.workers.member import Member

_SLOW = 2
"""Ticks of silence after which a worker is handed no connection while others speak."""


class Placing:
    """Places connections, at most `most` at a time; with no worker to take them, they wait for one."""

    def __init__(self, members: Callable[[], Iterable[Member]], most: int, observe: Observer) -> None:
        self._members = members
        self._most = most
        self._observe = observe
        self._waiting: list[tuple[bytes, socket.socket]] = []

    def place(self, kind: bytes, connection: socket.socket) -> None:
        """Hand a connection to the worker that has fewest, now or as soon as there is one."""
        if sum(member.open for member in self._members()) + len(self._waiting) >= self._most:
            self._observe(Trouble("too many connections", f"max_connections = {self._most}"))
            connection.close()
        elif not self._hand(kind, connection):
            self._waiting.append((kind, connection))

    def place_waiting(self) -> None:
        """There may be a worker again."""
        waiting, self._waiting = self._waiting, []
        for kind, connection in waiting:
            self.place(kind, connection)

    def close(self) -> None:
        """Nobody will take those that wait."""
        waiting, self._waiting = self._waiting, []
        for _, connection in waiting:
            connection.close()

    def _hand(self, kind: bytes, connection: socket.socket) -> bool:
        serving = [member for member in self._members() if member.serving]
        serving.sort(key=lambda member: (member.silent > _SLOW, member.open, member.handed))
        return any(member.hand(kind, connection) for member in serving)
