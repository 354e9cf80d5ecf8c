"""`mxweir domains` where PostgreSQL has the domains: `[postgres]` is configured.

Changes and questions go to the table itself, which is the truth for all hosts.
The commands that make its schema are here too.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psycopg

from mxweir.address import fold_domain
from mxweir.config import Config
from mxweir.config.sections import Postgres
from mxweir.domains.match import State, digest, find, parents
from mxweir.domains.record import FROM_COMMAND, Record
from mxweir.service import ServiceError
from mxweir_ops.commands import domains_replica
from mxweir_ops.commands.domains import FINDING, GOOD, MISUSE, given
from mxweir_ops.owner import become_owner
from mxweir_ops.progress import Progress
from mxweir_policyd.relaydomains import migrate, table
from mxweir_policyd.relaydomains.sources.file import BadLine, parse_domains
from mxweir_policyd.relaydomains.sources.postgres import Source, SourceError, connect

_KEPT_BAD = 1000
"""Bad lines that are told in JSON; a file may have millions."""

_FIRST = (
    "mxweir domains add: these are the first domains: mail for all others is refused (550) from now on;"
    " if there are more, add them now"
)


def init(args: argparse.Namespace, config: Config) -> int:
    """Make the schema, or bring it up to date; nothing to do is good too."""
    return _migrate(args, config, create=True)


def upgrade(args: argparse.Namespace, config: Config) -> int:
    """Bring the schema up to date, where there is one."""
    return _migrate(args, config, create=False)


def import_file(args: argparse.Namespace, config: Config) -> int:
    """Let the table hold exactly the domains of a file; its bad lines are told and skipped (status 1)."""
    shrink = 1.0 if args.force else config.domains.max_shrink
    with args.file.open("rb") as file, _writing(args, config) as connection:
        reading = _Reading(args.file, file, shrink, told=not args.json)
        try:
            changed = table.replace(connection, reading.records(), shrink)
        except table.RefusedError as error:
            hint = "if that is meant, use --force"
            print(f"mxweir domains import: not imported: {error}; {hint}", file=sys.stderr)
            return FINDING
        finally:
            reading.progress.close()
    if args.json:
        bad = [line._asdict() for line in reading.bad]
        print(json.dumps(changed._asdict() | {"bad": bad, "bad_lines": reading.bad_lines}))
    else:
        print(f"{changed.added} added, {changed.removed} removed, {changed.total} in the table")
    return FINDING if reading.bad_lines else GOOD


def add(args: argparse.Namespace, config: Config) -> int:
    """Add domains, and switch on those that were off: all of them, or none if one is wrong."""
    try:
        records = [given(text, args.next_hop) for text in args.domains]
    except ValueError as error:
        print(f"mxweir domains add: {error}; nothing was added", file=sys.stderr)
        return MISUSE
    with _writing(args, config) as connection:
        if table.is_empty(connection):
            print(_FIRST, file=sys.stderr)
        added = table.add(connection, records, args.tenant)
    print(json.dumps({"added": added}) if args.json else f"{added} added, {len(records) - added} changed")
    return GOOD


def remove(args: argparse.Namespace, config: Config) -> int:
    """Remove domains; status 1 if one was not there."""
    missing = []
    with _writing(args, config) as connection:
        for text in args.domains:
            if not table.remove(connection, fold_domain(text.removeprefix("."))):
                missing.append(text)
                print(f"mxweir domains remove: {text}: it is not in the table", file=sys.stderr)
    removed = len(args.domains) - len(missing)
    print(json.dumps({"removed": removed, "missing": missing}) if args.json else f"{removed} removed")
    return FINDING if missing else GOOD


def check(args: argparse.Namespace, config: Config) -> int:
    """Tell whether a domain is ours by the table in PostgreSQL, and what this host's replica has of it."""
    domain = fold_domain(args.domain)
    become_owner(config.state_dir)
    here = domains_replica.on_this_host(config, domain)
    try:
        with contextlib.closing(Source(_settings(args, config))) as source:
            match = find(domain, source.find([digest(name) for name in (domain, *parents(domain))]).get)
    except SourceError:
        if here:
            print(domains_replica.describe(here), file=sys.stderr)
        raise
    ours = match.state is State.OURS
    if args.json:
        told = {"domain": domain, "ours": ours, "by": match.by, "next_hop": match.next_hop}
        print(json.dumps(told | {"tenant": match.tenant, "here": here}))
    else:
        by = f" (by {match.by} and its subdomains)" if match.raw and match.by != domain else ""
        off = ", switched off" if match.raw and not ours else ""
        hop = f", next hop {match.next_hop}" if match.next_hop else ""
        print(f"{domain}: {match.state.value}{by}{off}{hop}")
        if here:
            print(domains_replica.describe(here))
    return GOOD if ours else FINDING


def export(args: argparse.Namespace, config: Config) -> int:
    """Print all domains in the order of their hashes; those switched off only in JSON."""
    with contextlib.closing(Source(_settings(args, config))) as source:
        for record in _records(source):
            if args.json:
                print(json.dumps(record._asdict(), ensure_ascii=False))
            elif record.enabled:
                print(record.line())
    return GOOD


def _records(source: Source) -> Iterator[Record]:
    for batch in source.fill():
        yield from (Record.decode(raw) for _, raw in batch)


class _Reading:
    """A file on its way into the table: bad lines are told as they come, and a bar shows how far it is."""

    def __init__(self, path: Path, file: BinaryIO, most_bad: float, told: bool) -> None:
        self.bad: list[BadLine] = []
        self.bad_lines = 0
        self.progress = Progress(str(path), path.stat().st_size)
        self._path, self._file, self._most_bad, self._told = path, file, most_bad, told

    def records(self) -> Iterator[Record]:
        """The good lines. Raises RefusedError if too many are bad: it is some other file."""
        number = 0
        for number, found in enumerate(parse_domains(self._file, FROM_COMMAND), 1):
            if isinstance(found, BadLine):
                self._tell(found)
            else:
                yield found
            if number % 1000 == 0:
                self.progress.at(self._file.tell(), f"{number:,} domains")
        if self.bad_lines > self._most_bad * number:
            bad = f"{self.bad_lines} of {number} lines are bad"
            raise table.RefusedError(f"{bad}, more than max_shrink = {self._most_bad:.0%} allows")
        self.progress.say("comparing with the table")

    def _tell(self, line: BadLine) -> None:
        self.bad_lines += 1
        if self._told:
            print(f"{self._path}:{line.number}: {line.what}; skipped", file=sys.stderr)
        elif len(self.bad) < _KEPT_BAD:
            self.bad.append(line)


def _migrate(args: argparse.Namespace, config: Config, create: bool) -> int:
    with contextlib.closing(connect(_settings(args, config), "mxweir domains")) as connection:
        done = migrate.migrate(connection, create)
        now = migrate.version(connection)
    if args.json:
        print(json.dumps({"version": now, "applied": [step.name for step in done]}))
    else:
        print("".join(f"applied {step.number}: {step.name}\n" for step in done) + f"the schema is at {now}")
    return GOOD


@contextlib.contextmanager
def _writing(args: argparse.Namespace, config: Config) -> Iterator[psycopg.Connection[Any]]:
    settings = _settings(args, config)
    if settings.view:
        raise ServiceError(f"the domains are in the view {settings.view} of yours: change them behind it")
    with contextlib.closing(connect(settings, "mxweir domains")) as connection:
        yield connection


def _settings(args: argparse.Namespace, config: Config) -> Postgres:
    """The configured connection, or that of `--dsn`: who may write need not be whom the daemons know."""
    dsn = getattr(args, "dsn", None)
    if config.postgres is None:
        raise ServiceError("PostgreSQL is not configured: there is no [postgres]")
    return dataclasses.replace(config.postgres, dsn=dsn) if dsn else config.postgres
