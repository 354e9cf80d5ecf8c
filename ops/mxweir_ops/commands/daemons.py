"""`mxweir policyd` and `mxweir milter`: one daemon each, in the foreground."""

import argparse
import sys
from typing import Any

from mxweir.config import load
from mxweir_ops.options import add_config


def add_parser(subparsers: Any) -> None:
    """Declare both."""
    policyd = subparsers.add_parser("policyd", help="run the policy daemon in the foreground")
    policyd.set_defaults(run=run_policyd)
    milter = subparsers.add_parser("milter", help="run the spam-scoring milter in the foreground")
    milter.set_defaults(run=run_milter)
    for parser in (policyd, milter):
        add_config(parser)


def run_policyd(args: argparse.Namespace) -> int:
    """Run the policy daemon until SIGTERM."""
    from mxweir_policyd import app  # noqa: PLC0415 - a daemon loads nothing of the other one

    return app.run(load(args.config), args.config)


def run_milter(args: argparse.Namespace) -> int:
    """Run the milter until SIGTERM."""
    try:
        from mxweir_milter import app  # noqa: PLC0415 - libmilter may not be installed
    except ModuleNotFoundError as error:
        print(f"mxweir milter: {error}; install it with: pip install 'mxweir[milter]'", file=sys.stderr)
        return 2
    return app.run(load(args.config), args.config)
