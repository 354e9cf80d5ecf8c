"""`mxweir domains import | add | remove | check | export | verify | init | upgrade`.

What these do to the table of this host is here; where PostgreSQL has the
domains, `domains_in_postgres` does it there.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mxweir.address import fold_domain
from mxweir.config import Config, load
from mxweir.config.sections import Postgres
from mxweir.domains.match import State
from mxweir.domains.names import parse_line
from mxweir.domains.record import FROM_COMMAND, FROM_FILE, Record
from mxweir.service import ServiceError
from mxweir_ops.commands.domains_for_postfix import export_tables
from mxweir_ops.options import add_config, add_dsn, add_json
from mxweir_ops.owner import become_owner
from mxweir_policyd.relaydomains.replica import Replica, ShrinkError
from mxweir_policyd.relaydomains.sources.file import DomainList, read_domains

GOOD, FINDING, MISUSE = 0, 1, 2

Work = Callable[[argparse.Namespace, Config], int]


def add_parser(subparsers: Any) -> None:
    """Declare the commands."""
    parser = subparsers.add_parser(
        "domains", help="the relay domains: import, add, remove, check, export, verify"
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, work: Work, text: str) -> Any:
        declared = verbs.add_parser(name, help=text, description=text)
        declared.set_defaults(run=lambda args: _work(name, work)(args, _config(name, args)))
        add_config(declared)
        return declared

    imported = verb("import", import_file, "let the domains given by command be exactly those of a file")
    imported.add_argument(
        "file", type=Path, metavar="FILE", help="a domain a line, optional next hop behind it"
    )
    imported.add_argument(
        "--force", action="store_true", help="even if the table shrinks by more than max_shrink"
    )
    added = verb("add", add, "add domains; .example.org stands for all below it too")
    added.add_argument("domains", nargs="+", metavar="DOMAIN")
    added.add_argument(
        "--next-hop", default="", metavar="HOP", help="in transport(5) syntax, such as smtp:[192.0.2.25]"
    )
    added.add_argument("--tenant", metavar="NAME", help="whose they are (only with [postgres])")
    removed = verb("remove", remove, "remove domains that were given by command")
    removed.add_argument("domains", nargs="+", metavar="DOMAIN")
    made = verb("init", _only_in_postgres, "make the schema in PostgreSQL, or bring it up to date")
    upgraded = verb("upgrade", _only_in_postgres, "bring the schema in PostgreSQL up to date")
    checked = verb("check", check, "is a domain ours? exit status 0 yes, 1 no")
    checked.add_argument("domain", metavar="DOMAIN")
    exported = verb("export", export, "print all domains, as a domains file")
    exported.add_argument(
        "--postfix-lmdb",
        type=Path,
        metavar="DIR",
        help="write Postfix's own tables there, and print no domains",
    )
    verified = verb(
        "verify", verify, "compare the table with the domains file; exit status 0 when they agree"
    )
    verified.add_argument(
        "--accept", action="store_true", help="take the file as it is, however much the table shrinks"
    )
    frozen = verb("freeze", _only_in_postgres, "pin the replica of this host, whatever changes in PostgreSQL")
    thawed = verb("thaw", _only_in_postgres, "let the replica of this host follow PostgreSQL again")
    with_data = (imported, added, removed, checked, exported, verified, made, upgraded, frozen, thawed)
    for parser_with_data in with_data:
        add_json(parser_with_data)
    for writing in (imported, added, removed, made, upgraded):
        add_dsn(writing)


def _config(name: str, args: argparse.Namespace) -> Config:
    """The configuration; none is read to make a schema that `--dsn` names.

    That is done before any host says [postgres], by somebody who need not be able to read it.
    """
    if name in ("init", "upgrade") and args.dsn:
        return Config(postgres=Postgres(dsn=args.dsn))
    return load(args.config)


def _work(name: str, here: Work) -> Work:
    """What does this for the configuration at hand: here, or in PostgreSQL."""

    def work(args: argparse.Namespace, config: Config) -> int:
        if getattr(args, "postfix_lmdb", None) is not None:
            return export_tables(args, config)  # of what this host knows, as Postfix on it does
        if config.postgres is None:
            if getattr(args, "dsn", None) or getattr(args, "tenant", None):
                return _only_in_postgres()
            return here(args, config)
        try:
            # psycopg is an extra
            from mxweir_ops.commands import domains_in_postgres, domains_replica  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ServiceError(f"{error}; install it with: pip install 'mxweir[postgres]'") from None
        module = domains_replica if name in ("verify", "freeze", "thaw") else domains_in_postgres
        elsewhere: Work = getattr(module, "import_file" if name == "import" else name)
        return elsewhere(args, config)

    return work


def _only_in_postgres(*_: object) -> int:
    raise ServiceError("the domains are not in PostgreSQL: there is no [postgres] in the configuration")


def import_file(args: argparse.Namespace, config: Config) -> int:
    """Import a file; its bad lines are told and skipped (status 1), its good lines kept."""
    found = read_domains(args.file, FROM_COMMAND)
    shrink = 1.0 if args.force else config.domains.max_shrink
    with _table(config) as replica:
        try:
            changed = replica.replace(FROM_COMMAND, found.records, shrink)
        except ShrinkError as error:
            _tell_bad(args.file, found)
            hint = "if that is meant, use --force"
            print(f"mxweir domains import: not imported: {error}; {hint}", file=sys.stderr)
            return FINDING
        replica.accept()
    if args.json:
        bad = [line._asdict() for line in found.bad]
        print(json.dumps(changed._asdict() | {"bad": bad}))
    else:
        _tell_bad(args.file, found)
        print(f"{changed.added} added, {changed.removed} removed, {changed.total} in the table")
    return FINDING if found.bad else GOOD


def add(args: argparse.Namespace, config: Config) -> int:
    """Add domains: all of them, or none if one is wrong; says so when the first switch the relay check on."""
    try:
        records = [given(text, args.next_hop) for text in args.domains]
    except ValueError as error:
        print(f"mxweir domains add: {error}; nothing was added", file=sys.stderr)
        return MISUSE
    with _table(config) as replica:
        if replica.off():
            print(_FIRST, file=sys.stderr)
        added, total = replica.add(records, FROM_COMMAND), replica.count()
    print(
        json.dumps({"added": added, "total": total}) if args.json else f"{added} added, {total} in the table"
    )
    return GOOD


_FIRST = (
    "mxweir domains add: these are the first domains: from now on mail for all others is refused (550);"
    " if there are more, add them now"
)


def given(domain: str, next_hop: str) -> Record:
    """A domain of the command line: what would be a comment or a next hop in a file is wrong here.

    Raises ValueError, which says what is wrong.
    """
    record = parse_line(f"{domain} {next_hop}", FROM_COMMAND)
    if record is None or len(domain.split()) != 1 or record.next_hop != next_hop:
        raise ValueError(f"{domain!r}{f' with next hop {next_hop!r}' if next_hop else ''} is not one domain")
    return record


def remove(args: argparse.Namespace, config: Config) -> int:
    """Remove domains; status 1 if one was not there."""
    missing = []
    with _table(config) as replica:
        for text in args.domains:
            domain = fold_domain(text.removeprefix("."))
            if not replica.remove(domain, FROM_COMMAND):
                missing.append(text)
                in_file = f"it stands in {config.domains.file}; remove it there"
                why = in_file if replica.get(domain) else "it is not in the table"
                print(f"mxweir domains remove: {text}: {why}", file=sys.stderr)
        total = replica.count()
    removed = len(args.domains) - len(missing)
    told = {"removed": removed, "missing": missing, "total": total}
    print(json.dumps(told) if args.json else f"{removed} removed, {total} in the table")
    return FINDING if missing else GOOD


def check(args: argparse.Namespace, config: Config) -> int:
    """Tell whether a domain is ours."""
    domain = fold_domain(args.domain)
    with _table(config) as replica:
        match = replica.find(domain)
    ours = match.state is State.OURS
    if args.json:
        print(json.dumps({"domain": domain, "ours": ours, "by": match.by, "next_hop": match.next_hop}))
    else:
        by = f" (by {match.by} and its subdomains)" if ours and match.by != domain else ""
        hop = f", next hop {match.next_hop}" if match.next_hop else ""
        print(f"{domain}: {match.state.value}{by}{hop}")
    return GOOD if ours else FINDING


def export(args: argparse.Namespace, config: Config) -> int:
    """Print all domains in the order of their names."""
    with _table(config) as replica:
        records = sorted(replica.records(), key=lambda record: record.domain)
    for record in records:
        print(json.dumps(record._asdict(), ensure_ascii=False) if args.json else record.line())
    return GOOD


def verify(args: argparse.Namespace, config: Config) -> int:
    """Compare the table with the domains file; with --accept, take the file as it is."""
    found = read_domains(config.domains.file, FROM_FILE)
    _tell_bad(config.domains.file, found)
    with _table(config) as replica:
        if args.accept:
            replica.replace(FROM_FILE, found.records, 1.0)
            replica.accept()
        table = {record.domain: record for record in replica.records(FROM_FILE)}
        total = replica.count()
    missing = sorted(found.records.keys() - table.keys())
    surplus = sorted(table.keys() - found.records.keys())
    other = sorted(name for name in found.records.keys() & table if _differ(found.records[name], table[name]))
    if args.json:
        told = {"file": str(config.domains.file), "missing": missing, "surplus": surplus, "other": other}
        print(json.dumps(told | {"bad": [line._asdict() for line in found.bad]}))
    else:
        for names, what in (
            (missing, "in the file, not in the table"),
            (surplus, "in the table, not in the file"),
            (other, "in both, with another next hop or without its subdomains"),
        ):
            print("".join(f"{domain}: {what}\n" for domain in names), end="")
        there = f"{len(found.records)} domains in {config.domains.file}"
        print(f"{there}; {total} in the table, {len(table)} of them from it")
    return FINDING if missing or surplus or other or found.bad else GOOD


def _differ(one: Record, other: Record) -> bool:
    return (one.next_hop, one.include_subdomains) != (other.next_hop, other.include_subdomains)


@contextlib.contextmanager
def _table(config: Config) -> Iterator[Replica]:
    """The table, as its owner, so read before what only root can read; raises ReplicaError."""
    become_owner(config.state_dir)
    with contextlib.closing(Replica(config.state_dir)) as replica:
        yield replica


def _tell_bad(path: Path, found: DomainList) -> None:
    for line in found.bad:
        print(f"{path}:{line.number}: {line.what}; skipped", file=sys.stderr)
