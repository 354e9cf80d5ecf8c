"""The process that keeps the replica current; the policy daemon starts it, and it dies with that.

A process of its own, because what it does in Python would cost the answering
loop its latency. Its settings come in as one line of JSON on stdin, which then
stays open: its end is the order to stop, also when the daemon was killed. What
it does goes out as lines of JSON on stdout (`Report`). It may end at any
instant: the replica is always whole.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import pbkdf2_hmac
from pathlib import Path
from random import random
from typing import Any, TypeVar

from mxweir.backoff import Backoff
from mxweir.clock import system_clock
from mxweir.config.sections import Postgres
from mxweir_policyd.relaydomains.audit import audit
from mxweir_policyd.relaydomains.follow import Follower, Step
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.queries import queries
from mxweir_policyd.relaydomains.report import BEAT, Following, Report, Settings
from mxweir_policyd.relaydomains.sources.postgres import Source, SourceError
from mxweir_policyd.relaydomains.tablefile import ReplicaError

_TURN = 1.0
"""Seconds after which the follower looks at what commands have changed, and what is due."""

_BREATH = 0.2
"""Seconds between two looks: a storm of notifications becomes five looks a second."""

_GATHERING = 0.5
"""Seconds that changes gather after a look that found many: the more come together, the less each costs."""

_QUIET = 1.0
"""Seconds after which it says that it lives, or how far it is: to hear it costs the answering loop time."""

_NICE = 5
"""Where processors are short, lookups go before."""

_MANY = 500
"""Changes of a look after which to hear of the next is work that can wait, too."""

_RESTS = 4
"""A comparison rests this many times as long as it works."""

_PROBE = 20_000
"""Rounds of a hash, some 8 ms: less would be done within the first turn that a thread gets."""

_PROMPT = 0.05
"""Seconds in which these are done where processors have time."""

_INSTANT = 0.005
"""Seconds below which a wait was none: what it tells may be as old as the wait before it."""

T = TypeVar("T")

Where = Callable[[Callable[[], Step]], Step]
"""Does a piece of work, in this thread or another."""

Tell = Callable[[Report | None], None]
"""Has a line go to the daemon: None only says that the follower lives."""


def main() -> None:
    """Follow until stdin ends. Signals to the whole service are for the daemon, which may want to drain.

    A Ctrl-Z, too: while one thread changes the replica, another one would take it, and all would stop.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    settings = Settings.of_line(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with contextlib.suppress(OSError):  # a unit's filter of system calls may not allow it
        os.nice(_NICE)

    def tell(report: Report | None) -> None:
        sys.stdout.buffer.write(BEAT if report is None else report.line().encode())
        sys.stdout.buffer.flush()

    follow(settings, tell)


def follow(settings: Settings, tell: Tell) -> None:
    """Keep the replica current for ever: after any failure, again, at a moment of its own."""
    backoff, aside = Backoff(), _Aside()
    while True:
        try:
            # To open it, another process reads all of it: not before each try to connect.
            with contextlib.closing(_opened(settings, tell)) as mirror:
                _go_on(settings, mirror, tell, backoff, aside)
        except ReplicaError as error:
            tell(Report(Following.FAILING, "failing", str(error)))
        time.sleep(backoff.failed(random()))  # noqa: S311 - no secret


def _go_on(settings: Settings, mirror: Mirror, tell: Tell, backoff: Backoff, aside: "_Aside") -> None:
    """One connection after the other; raises ReplicaError."""
    while True:
        try:
            _Connection(settings, mirror, tell, backoff, aside).forever()
        except SourceError as error:
            tell(Report(Following.AWAY, "away", str(error)))
        time.sleep(backoff.failed(random()))  # noqa: S311 - no secret
        mirror.check_place()


def _opened(settings: Settings, tell: Tell) -> Mirror:
    mirror = Mirror(Path(settings.state_dir), mend=True)
    if mirror.put_aside is not None:
        tell(
            Report(Following.STARTING, "damaged", f"kept as {mirror.put_aside}; filled anew from PostgreSQL")
        )
    return mirror


_NOTHING = Step()


class _Aside:
    """A thread for work that can wait, in time that nobody wants: changes, a comparison, a try to connect.

    A process of lower priority would not do. It keeps its turn when an answering
    process wakes, which was seen to cost 4 ms; one that idles leaves at once. But
    on a host whose processors are all taken, what idles hardly runs, and a change
    behind it was seen to wait for half a minute. So it first shows that it gets on.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_idle)
        self._probe: Future[bytes] | None = None

    def __call__(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result() if self._gets_on() else work()

    def _gets_on(self) -> bool:
        if self._probe is None or self._probe.done():
            # Does not hold the interpreter's lock, which the other thread would wait for; of a length that an
            # OpenSSL in FIPS mode takes, too.
            self._probe = self._thread.submit(pbkdf2_hmac, "sha256", bytes(16), bytes(16), _PROBE)
        try:
            self._probe.result(_PROMPT)
        except TimeoutError:
            return False
        return True


def _here(work: Callable[[], T]) -> T:
    return work()


def _idle() -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # of this thread alone


class _Connection:
    """One connection's time."""

    def __init__(
        self, settings: Settings, mirror: Mirror, tell: Tell, backoff: Backoff, aside: _Aside
    ) -> None:
        self._settings = settings
        self._mirror = mirror
        self._tell = tell
        self._backoff = backoff
        self._clock = system_clock()
        self._state = Following.STARTING
        self._rest = 0.0
        self._aside = aside
        self._many = False
        self._looked = self._heard = self._told = 0.0

    def forever(self) -> None:
        """Until the connection or the disk fails: SourceError, ReplicaError."""
        connect = partial(_listening, self._settings.postgres)
        source, notified = self._aside(connect) if self._backoff.failures else connect()
        with contextlib.closing(source):
            if not notified:
                self._say(Following.STARTING, trouble="unnotified", detail="it is asked every second")
            if missed := _audited(source, self._settings.postgres):
                self._say(Following.STARTING, trouble="unindexed", detail=missed)
            follower = Follower(
                self._mirror, source, self._settings.max_shrink, self._clock, alive=self._live
            )
            for step in follower.fill():
                self._say(Following.FILLING, step)
            self._catch_up(follower, time.monotonic(), _here)
            self._backoff.succeeded()
            self._follow(follower, source, notified)

    def _follow(self, follower: Follower, source: Source, notified: bool) -> None:
        self._looked = self._heard = time.monotonic()
        while True:
            if self._many:
                time.sleep(_GATHERING if notified else _TURN)
                self._aside(partial(self._turn, follower, source, notified, 0.0, _here))
            else:
                self._turn(follower, source, notified, self._rest or _TURN, self._aside)
            self._compare(follower)

    def _turn(self, follower: Follower, source: Source, notified: bool, seconds: float, where: Where) -> None:
        """Wait so long for a change, and take over, `where` it is to be done, what has come meanwhile."""
        began = time.monotonic()
        poked = _wait(source, seconds, notified)
        now = time.monotonic()
        self._heard, since = now, self._heard if now - began < _INSTANT else now
        self._many = False
        self._mirror.check_place()
        poll = self._settings.postgres.poll if notified else _TURN
        thawed = self._mirror.frozen() != (self._state is Following.FROZEN)
        if poked or now - self._looked >= poll or thawed:
            time.sleep(max(0.0, self._looked + _BREATH - now))
            self._looked = time.monotonic()
            self._catch_up(follower, since if poked else None, where)
        else:
            self._live()

    def _catch_up(self, follower: Follower, poked: float | None, where: Where) -> None:
        """Take changes over; one that nobody notified may have waited since the look before."""
        step = where(follower.catch_up)
        self._many = step.applied.changed > _MANY
        lag = step.since if poked is None else time.monotonic() - poked
        self._say(Following.FROZEN if step.applied.frozen else Following.FOLLOWING, step, lag=lag)

    def _compare(self, follower: Follower) -> None:
        """A range at a time, and then a rest: after a failover all hosts compare at once."""
        progress, every = self._mirror.progress(), self._settings.postgres.verify_every
        self._rest = 0.0
        if progress.compared is None:
            if self._clock() - progress.verified < every:
                return
            follower.begin_comparison()
        started = time.monotonic()
        step = self._aside(follower.compare)
        if step is not None:
            if step.share == 1:
                self._say(Following.FOLLOWING, step)
            elif any(step.applied[:2]) or self._state is not Following.COMPARING or self._is_quiet():
                self._say(Following.COMPARING, step)
            self._rest = min(_TURN, _RESTS * (time.monotonic() - started))

    def _live(self) -> None:
        if self._is_quiet():
            self._told = time.monotonic()
            self._tell(None)

    def _is_quiet(self) -> bool:
        """Whether it is time to say something, if only that it lives."""
        return time.monotonic() - self._told >= _QUIET

    def _say(self, state: Following, step: Step = _NOTHING, **rest: Any) -> None:
        done = step.applied
        self._state, self._told = state, time.monotonic()
        figures: dict[str, Any] = {"changed": done.changed, "lost": done.lost, "held": done.held}
        self._tell(Report(state, share=step.share, **figures, **rest))


def _wait(source: Source, seconds: float, notified: bool) -> bool:
    if notified:
        return source.wait(seconds)
    time.sleep(seconds)
    return False


def _listening(settings: Postgres) -> tuple[Source, bool]:
    """A connection that is told of changes, or, of a server that tells nobody, one that is not."""
    source = Source(settings)
    try:
        source.listen()
    except SourceError:
        source.close()
        return Source(settings), False
    return source, True


def _audited(source: Source, settings: Postgres) -> str:
    """Which queries find no index, and why; "" if all do. Raises SourceError."""
    found = audit(source.connection, queries(settings.view).all())
    return "; ".join(f"{finding.query}: {finding.what}" for finding in found)


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # no lock of stdin's is held, which an end by an error wants
        pass
    os._exit(0)  # at whatever instant: LMDB has the state before a transaction or the one behind it


if __name__ == "__main__":
    main()
