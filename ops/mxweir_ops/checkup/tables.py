"""The tables of Postfix's own that the policy daemon keeps (`domains.postfix_lmdb`)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

from mxweir_ops.checkup.finding import BAD, GOOD, NOTE, Finding
from mxweir_policyd.postfix.postmap import PostfixMap, PostfixMapError
from mxweir_policyd.postfix.rows import RELAY, TRANSPORT

_MADE_WITHIN = 10.0
"""Seconds after a first start within which the tables are made; somebody may ask right behind it."""

_LOOK = 0.1


def check(directory: Path, known: bool) -> Iterator[Finding]:
    """Look at both tables; `known` says whether this host knows a domain, before which there are none."""
    tables = [PostfixMap(directory, name) for name in (RELAY, TRANSPORT)]
    if known:
        _wait(lambda: all(table.there for table in tables))
    for table in tables:
        yield _table(table, known)


def _table(table: PostfixMap, known: bool) -> Finding:
    if not table.there:
        if not known:
            return Finding(NOTE, str(table.path), "is not there: it is made once there is a domain")
        what = "is not there, and with it Postfix answers 451; the log says why (Postfix tables not kept)"
        return Finding(BAD, str(table.path), what)
    try:
        with table.reading() as content:
            return Finding(GOOD, str(table.path), f"{content.count()} rows")
    except PostfixMapError as error:
        return Finding(BAD, str(table.path), str(error).removeprefix(f"{table.path}: "))


def _wait(true: Callable[[], bool]) -> None:
    end = monotonic() + _MADE_WITHIN
    while not true() and monotonic() < end:
        sleep(_LOOK)
