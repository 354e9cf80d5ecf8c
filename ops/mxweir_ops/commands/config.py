"""`mxweir config check | show | postfix`."""

import argparse
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from mxweir.config import Config, ConfigError, Problem, load
from mxweir.config.effective import effective, to_toml
from mxweir.config.schema import Lines
from mxweir_ops import connection_string, postfix, tls_files
from mxweir_ops.options import add_config, add_json


def add_parser(subparsers: Any) -> None:
    """Declare the commands."""
    parser = subparsers.add_parser(
        "config", help="check the configuration, show it, print Postfix's side of it"
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, text in (
        ("check", check, "report every mistake in the file at once"),
        ("show", show, "print the values in force, defaults included"),
        ("postfix", print_postfix, "print the main.cf and master.cf lines for this configuration"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.set_defaults(run=run)
        add_config(verb)
        add_json(verb)


def check(args: argparse.Namespace) -> int:
    """Exit status 0 when the file can be used, 2 when not (the caller prints the mistakes as text)."""
    try:
        config = _checked(args.config)
    except ConfigError as error:
        if not args.json:
            raise
        print(json.dumps({"file": str(args.config), "mistakes": error.lines(), "warnings": []}))
        return 2
    if args.json:
        print(json.dumps({"file": str(args.config), "mistakes": [], "warnings": list(config.warnings)}))
        return 0
    for warning in config.warnings:
        print(f"{args.config}: warning: {warning}")
    print(f"{args.config}: good")
    return 0


def _checked(path: Path) -> Config:
    """The configuration; what takes other packages or files to see is told too (ConfigError)."""
    config = load(path)
    problems = [*tls_files.problems(config)]
    if config.postgres is not None and (why := connection_string.fault(config.postgres.dsn)):
        problems.append(Problem(("postgres", "dsn"), why))
    if problems:
        lines = Lines(path.read_text(encoding="utf-8"))
        raise ConfigError(str(path), [replace(each, line=lines.of(each.place)) for each in problems])
    return config


def show(args: argparse.Namespace) -> int:
    """Print the values in force."""
    load(args.config)
    document = effective(args.config.read_text(encoding="utf-8"))
    print(
        json.dumps(document, default=str, indent=2) if args.json else to_toml(document),
        end="\n" if args.json else "",
    )
    return 0


def print_postfix(args: argparse.Namespace) -> int:
    """Print what Postfix needs."""
    config = load(args.config)
    main_cf, master_cf = postfix.main_cf(config, _queue_directory()), postfix.master_cf()
    if args.json:
        print(json.dumps({"main.cf": main_cf, "master.cf": master_cf}))
    else:
        print("\n".join(["# --- main.cf", *main_cf, "", "# --- master.cf", *master_cf]))
    return 0


def _queue_directory() -> str:
    """Where this host's Postfix has its queue; Debian's place where there is no Postfix."""
    if (postconf := shutil.which("postconf")) is None:
        return postfix.QUEUE_DIRECTORY
    found = subprocess.run([postconf, "-h", "queue_directory"], capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or postfix.QUEUE_DIRECTORY
