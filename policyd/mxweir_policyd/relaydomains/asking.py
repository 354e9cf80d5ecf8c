"""Ask PostgreSQL about the domains that wait for it: one connection, one query at a time.

Domains that come in while a query is on its way travel together in the next
one. So however many strangers ask for however many domains, the database has
one short query of this process at a time. While it cannot be asked, nobody
waits; how long the waits between attempts are is `Backoff`'s to say, and as long as
the follower does not get through either, they are longer: an attempt, with the proof
that both sides know a password, takes the answering loop some milliseconds.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from random import random
from typing import Any

import psycopg

from mxweir.backoff import Backoff
from mxweir.config.sections import Postgres
from mxweir.domains.match import digest, find, parents
from mxweir.events import Observer, Trouble, notice
from mxweir_policyd.relaydomains.confirm import Confirmations, Resume
from mxweir_policyd.relaydomains.queries import queries
from mxweir_policyd.relaydomains.sources.postgres import SourceError, connection_parameters, session, told

_TOGETHER = 200
"""Domains in one query; each has up to nine hashes."""

_STATEMENT = 2.0
"""Seconds after which the server gives a query up, such as one that waits for a lock."""

_GRACE = 1.0
"""Seconds more after which a server that says nothing is taken for frozen, and the connection cut."""

_LOOK = 0.5
_LOOKS = 20
"""Seconds between two looks whether the follower gets through, and looks after which we try in any case."""

_IS_STANDBY = "SELECT pg_is_in_recovery()"


class Asker:
    """Lets `confirmations` ask PostgreSQL; nobody waits longer than `deadline` seconds.

    `hopeless` says whether somebody else on this host tries in vain to connect.
    """

    def __init__(
        self,
        settings: Postgres,
        confirmations: Confirmations,
        deadline: float,
        observe: Observer,
        hopeless: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._confirmations = confirmations
        self._deadline = deadline
        self._observe = observe
        self._hopeless = hopeless
        self._query = queries(settings.view).find.text
        self._wanted: list[str] = []
        self._arrived = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.away = False
        """Whether PostgreSQL could not be asked when that was last tried."""

    def renew(self, settings: Postgres, deadline: float) -> bool:
        """Take new settings; True if `run` must be begun anew for them."""
        former, self._settings, self._deadline = self._settings, settings, deadline
        self._query = queries(settings.view).find.text
        return settings != former

    def ask(self, domain: str, resume: Resume) -> None:
        """Have `resume` called with whether the folded domain is ours; maybe at once."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._confirmations.wants(domain, resume, now, now + self._deadline, self.away):
            self._wanted.append(domain)
            self._arrived.set()
            if self._timer is None:
                self._timer = loop.call_at(now + self._deadline, self._late)

    async def run(self) -> None:
        """Keep a connection and ask, for ever."""
        backoff = Backoff()
        while True:
            try:
                async with await self._connected() as connection:
                    self._back()
                    backoff.succeeded()
                    await self._converse(connection)
            except (SourceError, psycopg.Error, OSError) as error:
                self._gone(told(error) if isinstance(error, psycopg.Error) else str(error))
                await asyncio.sleep(backoff.failed(random()))  # noqa: S311 - no secret
                await self._hope()

    async def _hope(self) -> None:
        for _ in range(_LOOKS):
            if not self._hopeless():
                return
            await asyncio.sleep(_LOOK)

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(**connection_parameters(self._settings))
        with self._bounded(connection):
            await connection.execute(session(_STATEMENT).encode())
        return connection

    async def _converse(self, connection: psycopg.AsyncConnection[Any]) -> None:
        standby = True
        while True:
            await self._idle(connection)
            domains = self._next()
            with self._bounded(connection):
                try:
                    # Before the rows: one that is promoted between the two has read them as a standby.
                    if standby:
                        ((standby,),) = await (await connection.execute(_IS_STANDBY)).fetchall()
                    rows = await self._rows(connection, domains)
                except psycopg.errors.QueryCanceled as error:
                    self._observe(Trouble("domain not confirmed", told(error)))
                    continue
            now = asyncio.get_running_loop().time()
            for domain in domains:
                if self._confirmations.waits(domain):
                    self._confirmations.answered(domain, find(domain, rows.get), not standby, now)

    async def _idle(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Until a domain is asked for, or the server says something unasked: mostly that it is leaving."""
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        loop.add_reader(descriptor, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            loop.remove_reader(descriptor)

    def _next(self) -> list[str]:
        """The domains of the next query; those for which nobody waits any more are dropped."""
        waiting = [domain for domain in self._wanted if self._confirmations.waits(domain)]
        self._wanted = waiting[_TOGETHER:]
        if not self._wanted:
            self._arrived.clear()
        return waiting[:_TOGETHER]

    async def _rows(self, connection: psycopg.AsyncConnection[Any], domains: list[str]) -> dict[bytes, bytes]:
        hashes = {digest(name) for domain in domains for name in (domain, *parents(domain))}
        cursor = await connection.execute(self._query, {"hashes": list(hashes)}, binary=True)
        return dict(await cursor.fetchall())

    @contextlib.contextmanager
    def _bounded(self, connection: psycopg.AsyncConnection[Any]) -> Iterator[None]:
        """Cut off a connection on which nothing comes back: a frozen server keeps no timeout of its own."""
        cut = asyncio.get_running_loop().call_later(_STATEMENT + _GRACE, _cut_off, connection.fileno())
        try:
            yield
        finally:
            cut.cancel()

    def _late(self) -> None:
        loop = asyncio.get_running_loop()
        self._confirmations.late(loop.time())
        first = self._confirmations.next_late
        self._timer = None if first is None else loop.call_at(first, self._late)

    def _back(self) -> None:
        if self.away:
            self._observe(notice("domains can be confirmed again"))
        self.away = False

    def _gone(self, why: str) -> None:
        if not self.away:
            self._observe(Trouble("domains cannot be confirmed", why))
        self.away = True
        self._wanted.clear()
        self._confirmations.away()


def _cut_off(descriptor: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
