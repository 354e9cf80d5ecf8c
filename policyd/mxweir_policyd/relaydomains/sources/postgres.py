"""Relay domains from PostgreSQL, as the replica wants them: hash and stored form, in batches.

Synchronous, for one process of its own. Each query is a transaction of its own
and short; so a fill holds nothing back in the database, and goes on from any
hash after an interruption. This order misses nothing:

    source.listen()             what is committed from here on pokes
    point = source.point()      what this snapshot does not show will be a change since `point`
    source.fill(after)          the whole table, in the order of hashes
    source.changes(point)       again and again, each time with the point taken before the last call

A change may be seen twice; since each row is told as it is now, that does no harm.
"""

import contextlib
import math
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import conninfo

from mxweir.config.sections import Postgres
from mxweir.service import ServiceError
from mxweir_policyd.relaydomains.queries import BATCH, CHANNEL, LAST, PLANNING, RANGE, Query, queries

Row = tuple[bytes, bytes]
"""A hash, and what the replica stores for it."""

Change = tuple[bytes, bytes | None]
"""The same; None where the domain is there no more."""

REMEMBERED = 30 * 86_400.0
"""Seconds for which the table remembers what was removed, and ten days less (schema/0001_domains.sql)."""


_GRANTED = ("schema mxweir", "table domains", "table removed", "table migrations")
"""How a refusal ends where roles.sql has not been run, or the one role is taken for the other."""

_GRACE = 1.0
"""Seconds beyond the server's own statement_timeout: its word on the matter says more than ours."""


class SourceError(ServiceError):
    """PostgreSQL did not give what it was asked for; one line, without secrets. Trying again may help."""


class PointLostError(SourceError):
    """Changes since a point cannot be told: another table or cluster, one that was set back, or too long ago.

    Only a full verify or a new fill brings the replica up to date.
    """


class Point(NamedTuple):
    """Where the table stood: which one it is, what was not committed yet, seconds since the epoch.

    The mark of our own table is a `Snapshot`, that of a customer's view a time.
    """

    identity: str
    mark: str
    at: float


class Snapshot(NamedTuple):
    """Which transactions a look did not show: those from `since` on, and those of `open`."""

    since: int
    open: tuple[str, ...]
    oldest: int
    """The oldest transaction that was open."""
    end: int
    """No transaction from here on had ended."""

    @classmethod
    def of_mark(cls, mark: str) -> "Snapshot":
        """From PostgreSQL's form, `oldest:end:open,open`; raises PointLostError.

        Where the open ones are not named (a hot standby's `oldest:end`, and `oldest`
        alone of former versions), all from the oldest on count as not shown.
        """
        oldest, _, rest = mark.partition(":")
        end, named, listed = rest.partition(":")
        try:
            first, last = int(oldest), int(end or oldest)
        except ValueError:
            raise PointLostError(f"no snapshot: {mark}") from None
        return cls(last if named else first, tuple(filter(None, listed.split(","))), first, last)


class Digest(NamedTuple):
    """What PostgreSQL has of the hashes behind one and up to `end`, that one too.

    `checksum` is SHA-256 over hash and stored form of each, in the order of the hashes.
    """

    end: bytes
    rows: int
    checksum: bytes


class Source:
    """One connection; after a SourceError, close it and open another.

    No query takes longer than `query_timeout` and a second, whether PostgreSQL is slow, frozen or gone.
    """

    def __init__(self, settings: Postgres) -> None:
        self._queries = queries(settings.view)
        self._timeout = settings.query_timeout
        self.connection = connect(settings)

    def close(self) -> None:
        """Give the connection back; never raises."""
        with contextlib.suppress(psycopg.Error):
            self.connection.close()

    def fileno(self) -> int:
        """The connection's socket, for a selector: readable when a notification may have come."""
        return self.connection.fileno()

    def point(self) -> Point:
        """Where the table stands now."""
        ((identity, mark, at),) = self._ask(self._queries.point)
        return Point(identity, mark, at)

    def fill(self, after: bytes = b"", end: bytes = LAST) -> Iterator[list[Row]]:
        """All rows behind the hash `after`, up to and with `end`, in the order of hashes, in batches."""
        rows = self._ask(self._queries.fill, after=after, end=end)
        while rows:
            yield rows
            full = len(rows) == BATCH
            rows = self._ask(self._queries.fill, after=rows[-1][0], end=end) if full else []

    def changes(self, since: Point) -> Iterator[list[Change]]:
        """What changed or was removed since a point, as it is now, in batches; raises PointLostError.

        Take the next point before this one's changes are read.
        """
        now = self.point()
        _check(since, now)
        if self._queries.removed is None:
            yield from self._pages(self._queries.changed, since.mark)
            return
        seen = Snapshot.of_mark(since.mark)
        _check_transactions(seen, Snapshot.of_mark(now.mark))
        for query in self._queries.late if seen.open else ():
            yield from self._pages(query, "0", open=list(seen.open))
        for query in (self._queries.removed, self._queries.changed):
            yield from self._pages(query, str(seen.since))

    def digest(self, after: bytes = b"") -> Digest:
        """Number and checksum of the next rows behind a hash; its `end` is LAST when these are the last."""
        ((count, checksum, last),) = self._ask(self._queries.digest, after=after)
        return Digest(bytes.fromhex(last) if count == RANGE else LAST, count, checksum)

    def find(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is stored for each of these hashes that is there."""
        return dict(self._ask(self._queries.find, hashes=list(hashes)))

    def listen(self) -> None:
        """Have changes notified from now on; a hot standby cannot (SourceError)."""
        with self._bounded():
            self.connection.execute(f"LISTEN {CHANNEL}")

    def wait(self, seconds: float) -> bool:
        """Whether a change was notified within that time; all that came are told as one."""
        with _told():
            poked = list(self.connection.notifies(timeout=seconds, stop_after=1))
            if poked:
                poked += self.connection.notifies(timeout=0)
        return bool(poked)

    def _pages(self, query: Query, mark: str, **values: object) -> Iterator[list[Change]]:
        rows = self._ask(query, mark=mark, after=b"", **values)
        while rows:
            yield [(row[0], row[1]) for row in rows]
            full = len(rows) == BATCH
            rows = self._ask(query, mark=rows[-1][2], after=rows[-1][0], **values) if full else []

    def _ask(self, query: Query, **values: object) -> list[Any]:
        with self._bounded():
            return self.connection.execute(query.text, values, binary=True).fetchall()

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Cut the connection off when it takes too long: a frozen server keeps no timeout of its own."""
        late = threading.Event()
        timer = threading.Timer(self._timeout + _GRACE, _cut_off, [self.connection.fileno(), late])
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.Error as error:
            text = f"no answer within {self._timeout:g} s" if late.is_set() else told(error)
            raise SourceError(text) from None
        finally:
            timer.cancel()


def _check(since: Point, now: Point) -> None:
    if now.identity != since.identity:
        raise PointLostError(f"the table is another one: {since.identity} became {now.identity}")
    if now.at - since.at > REMEMBERED:
        raise PointLostError("the last look was too long ago: what was removed since is forgotten")


def _check_transactions(since: Snapshot, now: Snapshot) -> None:
    if now.oldest < since.oldest or now.end < since.end:
        raise PointLostError("the cluster was set back: it has lost transactions")


def connect(settings: Postgres, name: str = "mxweir") -> psycopg.Connection[Any]:
    """A connection for `connection_parameters`, with a bound on each statement; raises SourceError."""
    parameters = connection_parameters(settings, name)
    with _told():
        connection = psycopg.connect(**parameters)
        try:
            connection.execute(session(settings.query_timeout).encode())
        except BaseException:
            connection.close()
            raise
    return connection


def session(seconds: float) -> str:
    """The statements with which each connection begins, whoever opens it.

    The server gives up what takes longer than so many seconds, such as waiting for
    a lock, and plans as PLANNING says.
    """
    return f"SET statement_timeout = {_whole(seconds * 1000)}; {PLANNING}"


def connection_parameters(settings: Postgres, name: str = "mxweir") -> dict[str, Any]:
    """What psycopg.connect takes, for a plain connection or an asynchronous one; raises SourceError.

    Each statement is a transaction of its own. `name` is what pg_stat_activity
    shows. Nothing is prepared on the server, so that each query has the plan
    that the audit saw, also behind a pooler.
    """
    try:
        given = conninfo.conninfo_to_dict(settings.dsn)
    except psycopg.ProgrammingError:
        # Its text may quote the password.
        raise SourceError("postgres.dsn is no connection string as libpq takes it") from None
    defaults = {"application_name": name, "connect_timeout": _whole(settings.connect_timeout)}
    return {**defaults, **given, "autocommit": True, "prepare_threshold": None}


def told(error: psycopg.Error) -> str:
    """What went wrong, in one line."""
    lines = (" ".join(line.split()) for line in (error.diag.message_primary or str(error)).splitlines())
    text = "; ".join(line for line in lines if line) or type(error).__name__
    missing = isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName)
    if missing and "mxweir." in text:
        return f"{text}: mxweir domains init makes the table"
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and text.endswith(_GRANTED):
        return f"{text}: roles.sql lets mxweir_reader read, and mxweir_writer change (--dsn)"
    return text


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise SourceError(told(error)) from None


def _whole(number: float) -> int:
    """Libpq takes whole numbers; less than 2 s are 2 s to it, and 0 would be for ever."""
    return max(1, math.ceil(number))


def _cut_off(descriptor: int, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
