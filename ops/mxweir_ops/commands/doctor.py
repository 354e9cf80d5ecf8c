"""`mxweir doctor`: is everything in order on this host?"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from mxweir.config import ConfigError, load
from mxweir_ops.checkup import CHECKS
from mxweir_ops.checkup.finding import BAD, Finding, Host
from mxweir_ops.options import add_config, add_json
from mxweir_ops.owner import become_owner


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    text = "look whether everything is in order: configuration, sockets, domains, PostgreSQL, Redis"
    parser = subparsers.add_parser("doctor", help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--only",
        choices=CHECKS,
        action="append",
        metavar="CHECK",
        help=f"one of {', '.join(CHECKS)}; repeatable",
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status 1 if anything is bad; each thing is told as soon as it is known."""
    bad = 0
    for finding in _findings(args):
        bad += finding.state == BAD
        if args.json:
            print(json.dumps(finding._asdict(), ensure_ascii=False), flush=True)
        else:
            print(f"{finding.state:4}  {finding.subject}: {finding.what}", flush=True)
    return 1 if bad else 0


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    try:
        config = load(args.config)
    except ConfigError as error:
        if not args.config.is_file():
            raise
        yield from (_mistake(str(args.config), line) for line in error.lines())
        return
    # What the daemons can do and see is what matters, not what root can.
    become_owner(config.state_dir)
    for name, check in CHECKS.items():
        if name in (args.only or CHECKS):
            try:
                yield from check(Host(config, args.config))
            except PermissionError as error:
                what = f"{error.strerror}; ask as root, or as the daemons' user"
                yield Finding(BAD, str(error.filename or name), what)


def _mistake(file: str, line: str) -> Finding:
    """A line of a ConfigError, `FILE:LINE: what` or `FILE: what`."""
    number, _, what = line.removeprefix(file).partition(": ")
    return Finding(BAD, file + number, what)
