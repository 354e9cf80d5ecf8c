"""`mxweir domains verify | freeze | thaw` where PostgreSQL has the domains: what this host keeps of them."""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from mxweir.clock import system_clock
from mxweir.config import Config
from mxweir.config.sections import Postgres
from mxweir.domains.reader import FROZEN, POSTGRES, PROGRESS, RECORDS, TableReader
from mxweir.service import ServiceError
from mxweir_ops import progress
from mxweir_ops.owner import become_owner
from mxweir_policyd.relaydomains.follow import Follower
from mxweir_policyd.relaydomains.keeper import take_lock
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.progress import Progress
from mxweir_policyd.relaydomains.sources.postgres import Source, SourceError

GOOD, FINDING = 0, 1

_PATIENCE = 30.0
"""Seconds without any step of the daemon's follower before the command says that it waits in vain."""


def verify(args: argparse.Namespace, config: Config) -> int:
    """Compare the replica with PostgreSQL, and mend it; with --accept, let go what was held back before.

    Where no daemon follows PostgreSQL, this command does it, and also makes a
    first fill; else it asks the daemon's follower, and waits.
    """
    become_owner(config.state_dir)
    try:
        lock = take_lock(config.state_dir)
    except OSError as error:
        raise ServiceError(f"{error.filename}: {error.strerror}") from None
    with _mirror(config, mend=lock is not None) as mirror:
        _refuse_frozen(mirror)
        accepted = mirror.accept() if args.accept else 0
        if lock is not None:
            _follow(mirror, config)
            os.close(lock)
        else:
            _ask(mirror)
        _refuse_frozen(mirror)  # by somebody else, meanwhile
        found = mirror.progress()
    if args.json:
        print(json.dumps({"domains": found.live, "held": found.held, "accepted": accepted}))
    else:
        let_go = f"{accepted} removed, which were held; " if args.accept else ""
        print(f"{let_go}{found.live} domains, as PostgreSQL has them{_held(found)}")
    return FINDING if found.held else GOOD


def freeze(args: argparse.Namespace, config: Config) -> int:
    """Pin the replica: this host goes by what it has, whatever changes in PostgreSQL."""
    return _pin(args, config, frozen=True)


def thaw(args: argparse.Namespace, config: Config) -> int:
    """Let the replica follow PostgreSQL again."""
    return _pin(args, config, frozen=False)


def on_this_host(config: Config, domain: str) -> dict[str, Any] | None:
    """What `check` says of the replica: whether it has the folded domain, and in which state it is.

    None where there is none that can be read.
    """
    with contextlib.closing(TableReader(config.state_dir / POSTGRES, RECORDS)) as reader:
        if not reader.there:
            return None
        found, frozen = Progress.decode(reader.meta(PROGRESS)), reader.meta(FROZEN) is not None
        return {
            "replica": reader.find(domain).state.value,
            "filled": found.filled,
            "frozen": frozen,
            "held": found.held,
            "seen": found.seen,
        }


def _pin(args: argparse.Namespace, config: Config, frozen: bool) -> int:
    become_owner(config.state_dir)
    with _mirror(config) as mirror:
        if frozen and not mirror.progress().filled:
            raise ServiceError("the replica on this host was not filled yet; there is nothing to freeze")
        changed = mirror.thaw() if not frozen else not mirror.frozen()
        if frozen:
            mirror.freeze(time.time())
    if args.json:
        print(json.dumps({"frozen": frozen, "changed": changed}))
    else:
        done, was = ("frozen", "frozen already") if frozen else ("not frozen any more", "not frozen")
        print(f"the replica of this host is {done if changed else was}")
    return GOOD


@contextlib.contextmanager
def _mirror(config: Config, mend: bool = False) -> Iterator[Mirror]:
    with contextlib.closing(Mirror(config.state_dir, mend)) as mirror:
        yield mirror


def _follow(mirror: Mirror, config: Config) -> None:
    """Do what the daemon's follower would."""
    bar = progress.Progress("relay domains", 1000)
    try:
        with contextlib.closing(Source(_postgres(config))) as source:
            follower = Follower(mirror, source, config.domains.max_shrink, system_clock())
            for step in follower.fill():
                bar.at(int(step.share * 1000), "first fill")
            follower.catch_up()
            follower.begin_comparison()
            while (step_or_none := follower.compare()) is not None:
                bar.at(int(step_or_none.share * 1000), "comparing")
            follower.catch_up()
    except SourceError as error:
        raise ServiceError(f"PostgreSQL: {error}") from None
    finally:
        bar.close()


def _ask(mirror: Mirror) -> None:
    """Have the daemon's follower compare, and wait for it."""
    bar = progress.Progress("relay domains", 2**32)
    begun = mirror.progress()
    if begun.compared is None and begun.filled:
        mirror.update(compared="")
    last, since = begun, time.monotonic()
    while (now := mirror.progress()).compared is not None or not now.filled:
        _refuse_frozen(mirror)
        if (now.compared, now.cursor) != (last.compared, last.cursor):
            last, since = now, time.monotonic()
        if time.monotonic() - since > _PATIENCE:
            bar.close()
            raise ServiceError("the daemon's follower does not get on; its log says why")
        bar.at(int((now.compared or now.cursor or "0")[:8], 16), "comparing" if now.filled else "first fill")
        time.sleep(0.1)
    bar.close()


def _refuse_frozen(mirror: Mirror) -> None:
    if mirror.frozen():
        raise ServiceError("the replica is frozen on this host; mxweir domains thaw lets it go on")


def _held(found: Progress) -> str:
    if not found.held:
        return ""
    return (
        f"; but {found.held} that it has no more are held back, more than max_shrink allows:"
        " if that is meant, mxweir domains verify --accept"
    )


def _postgres(config: Config) -> Postgres:
    if config.postgres is None:
        raise ServiceError("PostgreSQL is not configured: there is no [postgres]")
    return config.postgres


def describe(found: dict[str, Any]) -> str:
    """The replica's state in one line, for people."""
    words = [f"replica of this host: {found['replica']}"]
    words += [] if found["filled"] else ["not whole yet"]
    words += ["frozen"] if found["frozen"] else []
    words += [f"{found['held']} losses held back"] if found["held"] else []
    words += [f"last current {max(0.0, time.time() - found['seen']):.0f} s ago"] if found["seen"] else []
    return ", ".join(words)
