"""The process that keeps Postfix's tables current; the policy daemon starts it, and it dies with that.

A process of its own, because comparing ten million domains takes a minute of
processor time, and postmap may wait for the disk. It sees for itself what has
changed, whoever changed it: the follower of PostgreSQL, a reload of the domains
file, a command. Its settings come in as one line on stdin, whose end is the
order to stop; what it does goes out as lines on stdout.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import random

import lmdb

from mxweir.backoff import Backoff
from mxweir_policyd.postfix.keeping import PostfixMaps
from mxweir_policyd.postfix.postmap import PostfixMapError
from mxweir_policyd.postfix.report import BEAT, Report, Settings
from mxweir_policyd.postfix.source import Tables

_TURN = 0.5
"""Seconds between two looks at what has changed."""

_BEAT_EVERY = 2.0
"""Seconds after which it says that it lives, if nothing else."""

_NICE = 10

_DAMAGED = (
    "a stored domain is damaged and cannot be read: the next comparison with PostgreSQL mends it, "
    "or mxweir domains import, where it was given on this host"
)


def main() -> None:
    """Keep the tables until stdin ends. Signals to the whole service are for the daemon."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settings = Settings.of_line(sys.stdin.buffer.readline())
    with contextlib.suppress(OSError):  # a unit's filter of system calls may not allow it
        os.nice(_NICE)
    said = time.monotonic()
    for report, wait in keep(settings):
        if report is not None or time.monotonic() - said > _BEAT_EVERY:
            sys.stdout.buffer.write(BEAT if report is None else report.line().encode())
            sys.stdout.flush()
            said = time.monotonic()
        if select.select([sys.stdin], [], [], wait)[0]:
            return


def keep(settings: Settings) -> Iterator[tuple[Report | None, float]]:
    """What each look did, if there is something to tell, and seconds until the next look."""
    backoff, told = Backoff(first=4.0, most=300.0), None
    maps = PostfixMaps(Path(settings.directory))
    with contextlib.closing(Tables(Path(settings.state_dir), settings.postgres)) as tables:
        while True:
            try:
                domains = tables.changed()
                changed = maps.agree(tables) if domains is None else maps.follow(domains, tables)
                report, wait = (
                    Report(*changed, rows=maps.count() if any(changed) or not told else told.rows),
                    _TURN,
                )
                backoff.succeeded()
            except (PostfixMapError, lmdb.Error, ValueError, IndexError) as error:
                tables.look_again()
                wait = _TURN + backoff.failed(random())  # noqa: S311 - no secret
                told_by_it = isinstance(error, PostfixMapError | lmdb.Error)
                report = Report(trouble=str(error) if told_by_it else _DAMAGED)
            news = told is None or any(report[:3]) or report.trouble != told.trouble
            told = report
            yield report if news else None, wait


if __name__ == "__main__":
    main()
