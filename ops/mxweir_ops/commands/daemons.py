"""`mxweir policyd` and `mxweir milter`: one daemon each, in the foreground.

The exit status tells a service manager whether it may help to try again: 1 for
an address that is taken, a file that cannot be opened and the like; 2 for a
configuration that cannot work.
"""

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from mxweir.config import load
from mxweir.service import ServiceError
from mxweir_ops.options import add_config

END_WITH_STDIN = "--end-with-stdin"


def add_parser(subparsers: Any) -> None:
    """Declare both."""
    policyd = subparsers.add_parser("policyd", help="run the policy daemon in the foreground")
    policyd.set_defaults(run=run_policyd)
    milter = subparsers.add_parser("milter", help="run the spam-scoring milter in the foreground")
    milter.set_defaults(run=run_milter)
    for parser in (policyd, milter):
        add_config(parser)
        parser.add_argument(END_WITH_STDIN, action="store_true", help="stop when stdin ends, as on SIGTERM")


def end_with_stdin() -> None:
    """Stop when stdin ends: whoever started us and kept it open is gone."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_policyd(args: argparse.Namespace) -> int:
    """Run the policy daemon until SIGTERM."""
    from mxweir_policyd import app  # noqa: PLC0415 - a daemon loads nothing of the other one

    config = load(args.config)
    if args.end_with_stdin:
        end_with_stdin()
    try:
        return app.run(config, args.config)
    except ServiceError as error:
        return _told("policyd", error, error.status)
    except OSError as error:
        return _told("policyd", error, 1)


def run_milter(args: argparse.Namespace) -> int:
    """Run the milter until SIGTERM."""
    from mxweir_milter import app  # noqa: PLC0415 - a daemon loads nothing of the other one

    config = load(args.config)
    if args.end_with_stdin:
        end_with_stdin()
    try:
        return app.run(config, args.config)
    except OSError as error:
        return _told("milter", error, 1)


def _told(name: str, trouble: object, status: int) -> int:
    """Say why the daemon ends; its exit status."""
    if isinstance(trouble, OSError) and trouble.filename:
        trouble = f"{trouble.filename}: {trouble.strerror}"
    print(f"mxweir {name}: {trouble}", file=sys.stderr)
    return status
