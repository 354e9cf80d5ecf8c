"""The argument tree of `mxweir`; each command has a file of its own in `commands`.

Only the file of the command that was called is imported: a daemon does not
carry the rest of the operator's side in its memory.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mxweir import __version__
from mxweir.config import DEFAULT_PATH, ConfigError
from mxweir.service import ServiceError

_FILES = {
    "run": "run",
    "policyd": "daemons",
    "milter": "daemons",
    "config": "config",
    "domains": "domains",
    "explain": "explain",
    "limits": "limits",
    "block": "access",
    "allow": "access",
    "unblock": "access",
    "list": "access",
    "doctor": "doctor",
    "demo": "demo",
}
"""Command → the file that declares it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 good, 1 a finding, 2 misuse."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="mxweir",
        description="Admission control for Postfix MX hosts.",
        epilog=f"Configuration: --config FILE, else MXWEIR_CONFIG, else {DEFAULT_PATH}.",
    )
    parser.add_argument("--version", action="version", version=f"mxweir {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    called = _FILES.get(arguments[0]) if arguments else None
    for file in dict.fromkeys([called] if called else _FILES.values()):
        import_module(f"mxweir_ops.commands.{file}").add_parser(subparsers)
    args = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names may hold anything, and what is exported must not depend on who exports it.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return _run(f"mxweir {arguments[0]}", args)


def _run(name: str, args: argparse.Namespace) -> int:
    try:
        status = int(args.run(args))
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except ServiceError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _give_up_stdout()
        return 1
    except OSError as error:
        print(f"{name}: {error.filename or 'stdout'}: {error.strerror}", file=sys.stderr)
        if error.filename is None:
            _give_up_stdout()
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _give_up_stdout() -> None:
    """What could not be written must not be tried again, and fail again, at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
