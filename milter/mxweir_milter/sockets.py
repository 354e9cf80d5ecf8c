"""Tells whose socket is ready: one epoll of ours for all, which the event loop watches.

A socket is watched for one message, or for one answer to it. uvloop needs seven
calls of the kernel to begin and to end that, beside objects of its own; an epoll
needs one, and forgets a socket that is closed (Linux epoll(7)).
"""

import asyncio
import select
from collections.abc import Callable
from functools import cached_property

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT

Ready = Callable[[int], None]
"""Is told the events of its socket, errors among them: whatever is not WRITABLE is for the one who reads."""


class Sockets:
    """Those of one event loop, the one that runs when the first is watched."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._is_watched = False

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return asyncio.get_running_loop()

    def watch(self, descriptor: int, events: int, ready: Ready) -> None:
        """Call `ready` whenever one of these events is there; raises OSError."""
        if not self._is_watched:
            self.loop.add_reader(self._epoll.fileno(), self._turn)
            self._is_watched = True
        self._epoll.register(descriptor, events)
        self._ready[descriptor] = ready

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a socket that is watched."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Do not call again; the socket is about to be closed."""
        self._ready.pop(descriptor, None)

    def _turn(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            # One that was called before may have closed this one, or opened another of the same number.
            if ready := self._ready.get(descriptor):
                try:
                    ready(events)
                except Exception as error:  # noqa: BLE001 -- of one, and no other shall wait for it
                    what = {"message": "a socket that was ready was not served", "exception": error}
                    self.loop.call_exception_handler(what)
