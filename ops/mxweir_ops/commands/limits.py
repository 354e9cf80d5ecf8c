"""`mxweir limits show | top | reset`: what keys use of the limits."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Any

from mxweir.config import load
from mxweir.ratelimit.control import MOST
from mxweir.ratelimit.lookup import Use
from mxweir_ops.counters import InRedis, Seen, Top, counters
from mxweir_ops.counters_here import Shown
from mxweir_ops.options import add_config, add_json

GOOD, FINDING = 0, 1


def add_parser(subparsers: Any) -> None:
    """Declare the commands."""
    parser = subparsers.add_parser("limits", help="what keys use of the limits: show, top, reset")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        declared = verbs.add_parser(name, help=text, description=text)
        declared.set_defaults(run=run)
        return declared

    shown = verb("show", show, "what a key uses of every limit that it takes part in; charges nothing")
    reset = verb("reset", forget, "let a key begin anew with every limit that it takes part in")
    for keyed in (shown, reset):
        keyed.add_argument("key", metavar="KEY", help="an address, a domain, a network; parts with commas")
    top = verb("top", most_used, "who uses most of each limit")
    top.add_argument(
        "--count", type=_count, default=10, metavar="N", help="how many keys of each limit (%(default)s)"
    )
    for declared in (shown, reset, top):
        declared.add_argument("--limit", default="", metavar="NAME", help="of this limit alone")
        add_config(declared)
        add_json(declared)


def show(args: argparse.Namespace) -> int:
    """Print what a key uses; status 1 when no limit counts by such a key."""
    return _print(args, counters(load(args.config), args.limit).show(args.key))


def forget(args: argparse.Namespace) -> int:
    """Reset a key, and print what it used; status 1 when that was not done everywhere."""
    shown = counters(load(args.config), args.limit).show(args.key, reset=True)
    return _print(args, shown, "reset   what was used until now:")


def most_used(args: argparse.Namespace) -> int:
    """Print who uses most."""
    found = counters(load(args.config), args.limit)
    if isinstance(found, InRedis):
        tops, processes = found.top(args.count)
        print(_json_tops(tops, processes) if args.json else _text_tops(tops, processes))
        return GOOD
    uses, source = found.top(args.count)
    if args.json:
        print(json.dumps({"source": source, "uses": [each._asdict() for each in uses]}))
    else:
        rows = _rows(map(_cells, uses)) or ["  no key uses anything of a limit"]
        print("\n".join([f"source  {source}; exact, for this host", "", *rows]))
    return GOOD


def _print(args: argparse.Namespace, shown: Shown, *done: str) -> int:
    status = GOOD if shown.uses and not shown.missed else FINDING
    if args.json:
        uses = [each._asdict() for each in shown.uses]
        print(json.dumps({"source": shown.source, "uses": uses, "passed_over": shown.passed_over}))
        return status
    for line in shown.passed_over:
        print(f"passed over: {line}", file=sys.stderr)
    if not shown.uses:
        print(f"mxweir limits: no limit counts by a key such as {args.key!r}", file=sys.stderr)
        return FINDING
    print("\n".join([f"source  {shown.source}", *done, "", *_rows(map(_cells, shown.uses))]))
    return status


def _cells(used: Use) -> list[str]:
    most = "unlimited" if used.most is None else str(used.most)
    free = "room now" if used.wait <= 0 else f"room in {_seconds(used.wait)}"
    return [used.limit, f"{used.used}/{most}", free, used.rate, used.mode, used.key]


def _json_tops(tops: Sequence[Top], processes: int) -> str:
    limits = [
        {
            "limit": top.limit,
            "questions": top.questions,
            "unseen": top.unseen,
            "keys": [
                seen.use._asdict() | {"least": seen.least, "most_asked": seen.most} for seen in top.seen
            ],
        }
        for top in tops
    ]
    return json.dumps({"processes": processes, "limits": limits})


def _text_tops(tops: Sequence[Top], processes: int) -> str:
    lines = [f"source  sketches of {processes} processes, of the last 10 to 20 minutes; used/limit: Redis"]
    for top in tops:
        bound = f"a key that is not here came at most {top.unseen} times"
        lines += ["", f"{top.limit}: {top.questions} questions; {bound}"]
        lines += _rows(map(_seen_cells, top.seen))
    return "\n".join(lines)


def _seen_cells(seen: Seen) -> list[str]:
    asked = str(seen.least) if seen.least == seen.most else f"{seen.least} to {seen.most}"
    return [asked, *_cells(seen.use)[1:3], seen.use.key]


def _rows(rows: Iterable[list[str]]) -> list[str]:
    """As a table; keys hold what strangers sent, and stand last."""
    cells = [
        ["".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cell) for cell in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(["", *(cell.ljust(width) for cell, width in zip(row, widths, strict=True))]).rstrip()
        for row in cells
    ]


def _seconds(wait: float) -> str:
    return f"{wait:.1f} s" if wait < 600 else f"{ceil(wait / 60)} min"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST}")
    return int(text)
