"""`mxweir run`: the daemons together in the foreground.

With `--development DIR`, on a configuration of its own: loopback ports, state
under DIR, and a private spamd where the machine has one.
"""

import argparse
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mxweir.clock import system_clock
from mxweir.config import Config, load
from mxweir.events import Event, tell_all
from mxweir.log import LogObserver
from mxweir_ops.commands.daemons import END_WITH_STDIN
from mxweir_ops.development import Development
from mxweir_ops.lab.daemons import command
from mxweir_ops.options import add_config
from mxweir_ops.supervisor import Supervisor

_DRAIN_SLACK = 5.0
"""Seconds on top of a daemon's own drain time before it counts as hanging."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the argument tree."""
    parser = subparsers.add_parser(
        "run",
        help="run all daemons in the foreground",
        description="Run the policy daemon and the milter in the foreground until SIGTERM or Ctrl-C; "
        "one that dies is started again. SIGHUP reloads.",
    )
    where = parser.add_mutually_exclusive_group()
    add_config(where)
    where.add_argument(
        "--development",
        type=Path,
        metavar="DIR",
        help="run on loopback ports with a configuration and state in DIR, made if it is not there",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop; 0 after a clean stop, 2 for a configuration that cannot work, else 1."""
    # Until the supervisor takes over, a SIGTERM unwinds like a Ctrl-C, so that nothing is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        if args.development is None:
            return _supervise(args.config, load(args.config))
        with Development(args.development) as development:
            config = load(development.config_file)
            _print([*development.told(config)])
            return _supervise(development.config_file, config)
    return 0


def _supervise(config_file: Path, config: Config) -> int:
    log = LogObserver(config.log, system_clock(), "run")
    write = tell_all(log.handlers())

    def tell(event: Event) -> None:
        # The terminal may be gone; the daemons still have to be stopped in order.
        with suppress(OSError):
            write(event)

    commands = {verb: [*command(verb, config_file), END_WITH_STDIN] for verb in ("policyd", "milter")}
    drain = max(config.policyd.drain, config.milter.drain) + _DRAIN_SLACK
    try:
        return Supervisor(commands, drain, tell).run(log.tick)
    finally:
        with suppress(OSError):
            log.close()


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)
