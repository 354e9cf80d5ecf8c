"""`mxweir block | allow | unblock | list`: access entries by command, on all hosts or on this one."""

import argparse
import getpass
import json
import os
import socket
import sys
from datetime import UTC, datetime
from math import inf
from typing import Any

from mxweir.clock import system_clock
from mxweir.config import AccessEntry, Config, load
from mxweir.facts import KEYS, Folder
from mxweir.units import parse_duration
from mxweir_ops.access import Done, FullError, here, in_force, in_redis
from mxweir_ops.options import add_config, add_json
from mxweir_policyd.accesslist.record import LONGEST_BY, Record, given

GOOD, FINDING, MISUSE = 0, 1, 2

_VERBS = {
    "block": ("block", "refuse what matches, before all other checks"),
    "allow": ("allow", "let what matches pass the limits and the entries that block"),
    "unblock": ("", "withdraw what `mxweir block` or `mxweir allow` said of a value"),
}


def add_parser(subparsers: Any) -> None:
    """Declare the commands."""
    for name, (action, text) in _VERBS.items():
        parser = subparsers.add_parser(name, help=text, description=text)
        parser.set_defaults(run=lambda args, name=name, action=action: say(name, action, args))
        parser.add_argument("key", choices=KEYS, metavar="KEYNAME", help=f"one of {', '.join(KEYS)}")
        parser.add_argument("value", metavar="VALUE", help="what it must be")
        if action:
            parser.add_argument("--reason", default="", metavar="TEXT", help="what whoever is refused reads")
            parser.add_argument(
                "--expires", type=_moment, default=inf, metavar="WHEN", help="2h, 7d, or 2027-01-31T12:00Z"
            )
        add_config(parser)
        add_json(parser)
    listed = subparsers.add_parser(
        "list", help="the access entries, in the order in which they count", description=show.__doc__
    )
    listed.set_defaults(run=show)
    add_config(listed)
    add_json(listed)


def say(name: str, action: str, args: argparse.Namespace) -> int:
    """Say it; status 1 where there was nothing to withdraw, or there is no room."""
    config = load(args.config)
    folder = Folder(config.keys.ipv4_prefix, config.keys.ipv6_prefix, config.keys.recipient_delimiter)
    reason, expires = getattr(args, "reason", ""), getattr(args, "expires", inf)
    if expires <= system_clock()():
        print(f"mxweir {name}: {_time(expires)} is past; nothing was changed", file=sys.stderr)
        return MISUSE
    try:
        record = given(Record(args.key, args.value, action, reason, expires, _who()), folder)
    except ValueError as error:
        print(f"mxweir {name}: {error}; nothing was changed", file=sys.stderr)
        return MISUSE
    try:
        done = here(config, record) if config.redis is None else in_redis(config.redis, record)
    except FullError as error:
        print(f"mxweir {name}: {error}", file=sys.stderr)
        return FINDING
    if done is None:
        print(f"mxweir {name}: {record.field}: {_nothing(config, record, folder)}", file=sys.stderr)
        return FINDING
    data = _data(done.record) | {"where": done.where, "before": done.before and _data(done.before)}
    print(json.dumps(data) if args.json else _told(done))
    if done.trouble:
        print(f"mxweir {name}: in force, but not saved: {done.trouble}", file=sys.stderr)
        return FINDING
    return GOOD


def show(args: argparse.Namespace) -> int:
    """Print the access entries in the order in which they count: of those that match, the first decides."""
    config = load(args.config)
    records, note = in_force(config)
    now = system_clock()()
    latest = sorted(records, key=lambda record: -record.version)
    rows = [
        _data(record) | {"from": "command"} for record in latest if record.action and record.expires > now
    ]
    rows += [_written(entry) for entry in config.access if entry.expires is None or entry.expires > now]
    if note:
        print(f"mxweir list: {note}", file=sys.stderr)
    if args.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return GOOD
    cells = [[str(row[name] or "-") for name in _COLUMNS] for row in rows]
    widths = [max((len(row[place]) for row in cells), default=0) for place in range(len(_COLUMNS))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return GOOD


_COLUMNS = ("action", "key", "value", "expires", "from", "by", "made", "reason")


def _data(record: Record) -> dict[str, Any]:
    return {
        "action": record.action or "withdrawn",
        "key": record.key,
        "value": record.value,
        "reason": record.reason,
        "expires": None if record.expires == inf else _time(record.expires),
        "by": record.by,
        "made": _time(record.made / 1e6),
    }


def _written(entry: AccessEntry) -> dict[str, Any]:
    return {
        "action": "block" if entry.block else "allow",
        "key": entry.block or entry.allow,
        "value": entry.value,
        "reason": entry.reason,
        "expires": None if entry.expires is None else _time(entry.expires),
        "by": "",
        "made": None,
        "from": "configuration",
    }


def _told(done: Done) -> str:
    record, before = done.record, done.before
    until = "" if record.expires == inf else f", until {_time(record.expires)}"
    said = {"block": "blocked", "allow": "allowed", "": "withdrawn"}[record.action]
    lines = [f"{said}: {record.field}, {done.where}{until}"]
    if before is not None and before.action:
        reason = f": {before.reason}" if before.reason else ""
        lines.append(f"before: {before.action} by {before.by}, {_time(before.made / 1e6)}{reason}")
    return "\n".join(lines)


def _nothing(config: Config, record: Record, folder: Folder) -> str:
    """Why there was nothing to withdraw."""
    for entry in config.access:
        key = entry.block or entry.allow or ""
        value = entry.value if key == "client_network" else folder.key(key, entry.value)
        if (key, value) == (record.key, record.value):
            return (
                "no command said anything of it; it stands in the configuration: remove it there, and reload"
            )
    return "no command said anything of it"


def _who() -> str:
    """Who gives this command, and where."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    name = f"{user}@{socket.gethostname()}"
    return "".join(sign for sign in name if sign.isprintable())[:LONGEST_BY]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str) -> float:
    """A duration from now, or a date and time, as seconds since the epoch."""
    try:
        return system_clock()() + parse_duration(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        what = f"{text!r} is neither a duration such as 2h or 7d nor a moment such as 2027-01-31T12:00Z"
        raise argparse.ArgumentTypeError(what) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
