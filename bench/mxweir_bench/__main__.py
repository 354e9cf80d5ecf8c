"""Measure mxweir: its policy daemon against a no-op server in C, its milter against other milters.

    make bench                                   everything, more than half an hour
    make bench ARGS="--only rates --quick"
    make bench ARGS="--json result.json"

The policy daemon: requests a second and latency (rates), memory with many live
keys (memory), CPU time a message through a private Postfix (mail), two worker
processes against one (workers). The milter:
messages a second through Postfix (milter), 200 simultaneous ends of message with a
silent engine (burst), a message's time while nobody is asked (breakers), memory with
200 large messages (large), minutes with engines that misbehave at random (soak).
PostgreSQL: questions by hash beside an unindexed column, imports, fills (database;
several minutes, and some GB below /var/tmp). The table on this host: lookups as it
grows, its import, Postfix's own tables (index; the same). Limits in Redis: requests a
second (shared), beside postfwd and policyd-rate-limit (peers), latency at a fixed
arrival rate (open), a flood from one sender (flood), what a hundred hosts cost (fleet).
What uses Postfix needs root and Debian's postfix, milter spamass-milter too. Prints
Markdown. The exit status is 0 whatever the figures
are, 1 when a run was not valid, 2 when something is missing.
"""

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mxweir_bench import (
    breakers,
    burst,
    database,
    fleet,
    flood,
    index,
    large,
    mail,
    memory,
    milter,
    openloop,
    peers,
    rates,
    report,
    servers,
    shared,
    soak,
    tools,
    trouble,
    workers,
)
from mxweir_bench.load import InvalidRunError
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import LabError

PARTS = (
    "rates",
    "memory",
    "mail",
    "milter",
    "burst",
    "breakers",
    "large",
    "soak",
    "database",
    "index",
    "trouble",
    "workers",
    "shared",
    "peers",
    "open",
    "flood",
    "fleet",
)


def main() -> int:
    """Run the chosen parts and print them."""
    options = _options()
    if servers.IN_MEMORY.is_dir():
        tempfile.tempdir = str(servers.IN_MEMORY)  # log files, and Postfix's queue
    try:
        with temporary_directory() as directory:
            result, text = _measure(options, directory)
    except InvalidRunError as error:
        print(f"bench: not a valid run: {error}", file=sys.stderr)
        return 1
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(text)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mxweir_bench", description="Measure mxweir against a no-op policy server."
    )
    add = parser.add_argument
    add("--only", choices=PARTS, action="append", help="this part (may be repeated)")
    add("--quick", action="store_true", help="one short round: shows that it runs, proves nothing")
    add("--connections", type=int, nargs="+", default=[8, 64, 256], help="(rates; default 8 64 256)")
    add("--seconds", type=float, default=3.0, help="length of a run (rates; default 3)")
    add("--rounds", type=int, default=5, help="(rates; mail has sixty times as many; default 5)")
    add("--minutes", type=float, default=3.0, help="length of the soak (default 3)")
    add("--sizes", type=int, nargs="+", default=database.SIZES, help="(database, index; up to 10000000)")
    add("--unix", action="store_true", help="unix sockets, not loopback TCP (rates, memory)")
    add("--json", type=Path, metavar="FILE", help="write all figures there, each single run among them")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.minutes = 0.5, 1, 0.2
        options.sizes = [size for size in options.sizes if size <= 100_000] or [10_000]
    return options


def _measure(options: argparse.Namespace, directory: Path) -> tuple[dict[str, Any], str]:
    """All figures for --json, and Markdown."""
    built = tools.build(directory)
    seconds, rounds, unix = options.seconds, options.rounds, options.unix
    run = {
        "rates": lambda: rates.part(built, directory, options.connections, seconds, rounds, unix=unix),
        "memory": lambda: memory.part(built, directory, unix=unix),
        "mail": lambda: mail.part(built, directory, 60 * rounds),
        "milter": lambda: milter.part(built, directory, rounds),
        "burst": lambda: burst.part(directory, rounds),
        "breakers": lambda: breakers.part(directory, rounds),
        "large": lambda: large.part(directory),
        "soak": lambda: soak.part(directory, options.minutes),
        "database": lambda: database.part(options.sizes),
        "index": lambda: index.part(options.sizes, rounds),
        "shared": lambda: shared.part(built, directory, seconds, rounds, unix=unix),
        "peers": lambda: peers.part(built, directory, seconds, rounds),
        "open": lambda: openloop.part(built, directory, seconds, rounds),
        "flood": lambda: flood.part(built, directory),
        "fleet": lambda: fleet.part(built, directory, rounds),
        "trouble": lambda: trouble.part(built, directory, seconds / 2, 1_000 if options.quick else 100_000),
        "workers": lambda: workers.part(built, directory, seconds, rounds, unix=unix),
    }
    parts = {name: run[name]() for name in PARTS if name in (options.only or PARTS)}
    targets = [target for part in parts.values() for target in part.targets]
    about = {"command": _command(), **report.machine()}
    figures = {name: part.figures for name, part in parts.items()}
    heading = "\n".join(f"- {name}: {value}" for name, value in about.items())
    reached = f"## Targets\n\n{report.targets_table(targets)}"
    text = "\n\n".join([heading, *(part.text for part in parts.values()), reached])
    return {"about": about, "targets": [asdict(target) for target in targets], **figures}, text


def _command() -> str:
    return f"make bench ARGS={shlex.quote(shlex.join(sys.argv[1:]))}" if sys.argv[1:] else "make bench"


if __name__ == "__main__":
    sys.exit(main())
