"""Options that several commands share."""

import argparse
import os
from pathlib import Path

from mxweir.config import DEFAULT_PATH
from mxweir_ops import connection_string


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`; without it MXWEIR_CONFIG, else the file of the package."""
    default = Path(os.environ.get("MXWEIR_CONFIG") or DEFAULT_PATH)
    parser.add_argument(
        "--config", type=Path, default=default, metavar="FILE", help="configuration (%(default)s)"
    )


def add_dsn(parser: argparse.ArgumentParser) -> None:
    """`--dsn DSN`, as whom to write to PostgreSQL."""
    text = "connect by this string, not postgres.dsn (leave the password to ~/.pgpass)"
    parser.add_argument("--dsn", type=connection_string.argument, metavar="DSN", help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
