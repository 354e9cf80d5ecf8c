"""`mxweir demo`: what mxweir does, shown on real mail through private servers."""

import argparse
import json
import re
import signal
import sys
import textwrap
from typing import Any

from mxweir_ops.demonstration import Shown, Stage
from mxweir_ops.lab.process import LabError
from mxweir_ops.options import add_json

_WIDTH = 90


def add_parser(subparsers: Any) -> None:
    """Add this command to the argument tree."""
    parser = subparsers.add_parser(
        "demo",
        help="send a few messages through a private Postfix and show what happens",
        description="Start a private Postfix, spamd and mxweir in a temporary directory (needs root), send a "
        "handful of messages, show what Postfix answered to each and why, and stop everything again.",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the scenes; 0 when each went as it should, 1 when one did not or a server is missing."""
    # A SIGTERM unwinds like a Ctrl-C, so that no server is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if not args.json:
            print("Starting a private Postfix, spamd, mxweir policyd and mxweir milter.", flush=True)
        with Stage() as stage:
            status = _print_all(stage, args.json)
    except LabError as error:
        print(f"mxweir demo: {error}", file=sys.stderr)
        return 1
    if not args.json:
        print("\nEverything is stopped again.")
    return status


def _print_all(stage: Stage, as_json: bool) -> int:
    shown = []
    for number, scene in enumerate(stage.play(), start=1):
        shown.append(scene)
        if not as_json:
            print("\n".join(["", *_told(number, scene)]), flush=True)
    if as_json:
        print(json.dumps([_as_data(scene) for scene in shown], indent=2))
    surprises = [scene.scene.title for scene in shown if not scene.as_expected]
    if surprises:
        print(f"mxweir demo: not as it should be: {', '.join(surprises)}", file=sys.stderr)
    return 1 if surprises else 0


def _told(number: int, shown: Shown) -> list[str]:
    scene = shown.scene
    repeated = f", {scene.times} times; to the last one" if scene.times > 1 else ""
    rows = [
        ("message", f"{scene.sender} to {scene.recipient}{repeated}"),
        ("Postfix", str(shown.reply)),
        ("because", _reason(shown.line)),
    ]
    if shown.delivered is not None:
        rows += [("delivered", f"{name}: {value}") for name, value in shown.delivered.items()]
    return [f"{number}. {scene.title}", *(line for name, text in rows for line in _wrapped(name, text))]


def _wrapped(name: str, text: str) -> list[str]:
    """A row whose continued lines stand below its text; log fields and headers may break at a comma."""
    lines = textwrap.wrap(re.sub(r",(?=\S)", ", ", text), _WIDTH, break_long_words=False) or [""]
    return [f"   {name if number == 0 else '':<10} {line}" for number, line in enumerate(lines)]


def _reason(line: dict[str, Any]) -> str:
    """The fields of a log line that decided."""
    if line.get("event") == "scan":
        daemon, names = "milter", ["outcome", "score", "threshold", "reason", "symbols"]
    else:
        daemon, names = "policyd", ["check", "rule", "key", "used"]
    fields = [f"{name}={line[name]}" for name in names if line.get(name) not in (None, "")]
    return f"{daemon}: {' '.join(fields)}" if fields else "no log line explains it"


def _as_data(shown: Shown) -> dict[str, Any]:
    scene = shown.scene
    return {
        "scene": scene.title,
        "sender": scene.sender,
        "recipient": scene.recipient,
        "messages": scene.times,
        "reply": {"code": shown.reply.code, "text": shown.reply.text},
        "as_expected": shown.as_expected,
        "delivered": shown.delivered,
        "log": shown.line,
    }
