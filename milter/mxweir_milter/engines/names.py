"""Host names of engines, looked up beside the scans.

The system's resolver cannot be cancelled, and may hang for as long as it likes:
on a DNS server that is silent, on an nss module that waits. So a name is looked
up in a thread of its own, one at a time, and whoever waits for it can give up. An
answer is good for a minute; after that the next scan still uses it, while a
newer one is fetched. What was last known thus holds for as long as DNS is away.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

_FRESH = 60.0
"""Seconds for which an answer is not asked for again."""

_RETRY = 5.0
"""Seconds after a failed lookup before the next one."""

_MOST = 8
"""Addresses of one name that are tried."""

Lookup = Callable[[str], Sequence[str]]
"""A host name's addresses; raises OSError. Runs in a thread, and may take any time."""


def system_lookup(host: str) -> Sequence[str]:
    """Ask the system's resolver (getaddrinfo(3)), in its order."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


_Ticket = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


@dataclass(slots=True)
class _Known:
    """What is known of one name."""

    addresses: Sequence[str] = ()
    error: OSError | None = None
    next_at: float = float("-inf")
    asking: bool = False
    waiting: set[_Ticket] = field(default_factory=set)

    def ticket(self) -> _Ticket:
        """Something to wait for, on the running loop, until the lookup is done."""
        loop = asyncio.get_running_loop()
        self.waiting.add(ticket := (loop, loop.create_future()))
        return ticket


class Names:
    """The names of all engines; for whatever event loops scan, and kept over a reload.

    There are as many threads at most as there are names.
    """

    def __init__(self, lookup: Lookup = system_lookup, clock: Callable[[], float] = monotonic) -> None:
        self._lookup = lookup
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    async def addresses(self, host: str) -> Sequence[str]:
        """A host's addresses, at least one; raises OSError."""
        if _is_address(host):
            return (host,)
        with self._lock:
            known = self._known.setdefault(host, _Known())
            if not known.asking and self._clock() >= known.next_at:
                self._start(host, known)
            ticket = known.ticket() if known.asking and not known.addresses else None
        if ticket:
            try:
                await ticket[1]
            finally:
                known.waiting.discard(ticket)
        if known.addresses:
            return known.addresses
        raise known.error or OSError(f"{host} has no address")

    def _start(self, host: str, known: _Known) -> None:
        """Begin to look up, in a daemon thread, which nobody waits for at the end: it may hang for good."""
        try:
            threading.Thread(target=self._ask, args=(host, known), name="lookup", daemon=True).start()
            known.asking = True
        except RuntimeError as error:  # the system gives us no more threads
            known.error, known.next_at = OSError(f"{host}: {error}"), self._clock() + _RETRY

    def _ask(self, host: str, known: _Known) -> None:
        """In a thread of its own: look up, and tell those who wait."""
        found: Sequence[str] = ()
        error: OSError | None = None
        try:
            found = self._lookup(host)[:_MOST]
        except (OSError, UnicodeError) as failure:
            error = OSError(f"{host} cannot be looked up: {failure}")
        with self._lock:
            known.asking = False
            known.next_at = self._clock() + (_FRESH if found else _RETRY)
            known.addresses, known.error = found or known.addresses, error
            waiting = tuple(known.waiting)
        for loop, ticket in waiting:
            with suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(_tell, ticket)


def _tell(ticket: "asyncio.Future[None]") -> None:
    if not ticket.done():
        ticket.set_result(None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
