"""`mxweir explain`: what would be answered to a request, and why; it spends nothing."""

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mxweir import control
from mxweir.access import Index
from mxweir.address import NULL_SENDER
from mxweir.clock import system_clock
from mxweir.config import Config, LimitRule, load
from mxweir.facts import CONTENT_KEYS
from mxweir.ratelimit import snapshot
from mxweir.trail import Step
from mxweir_ops.options import add_config, add_json
from mxweir_ops.owner import become_owner
from mxweir_policyd.accesslist import kept
from mxweir_policyd.accesslist.book import Book
from mxweir_policyd.control import explain, facts_of
from mxweir_policyd.domains import reading
from mxweir_policyd.protocol import MAX_REQUEST, ProtocolError
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.tablefile import ReplicaError
from mxweir_policyd.worker import build_pipeline, snapshot_path

_GIVEN = {
    "client": "client_address",
    "helo": "helo_name",
    "sender": "sender",
    "recipient": "recipient",
    "sasl": "sasl_username",
    "size": "size",
    "state": "protocol_state",
    "context": "policy_context",
}


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    text = "show what would be answered to a policy request, and why; charges nothing"
    parser = subparsers.add_parser(
        "explain", help=text, description=f"{text}. Without options, reads one from stdin."
    )
    parser.set_defaults(run=run)
    for option, attribute in _GIVEN.items():
        parser.add_argument(f"--{option}", metavar="TEXT", help=f"the attribute {attribute}")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the trail; status 0 when mail would pass, 1 when it would be refused."""
    config = load(args.config)
    try:
        attributes = _attributes(args)
        become_owner(config.state_dir)
        found, source = _explain(config, attributes)
    except PermissionError:
        found = {"error": f"{config.state_dir}: Permission denied; ask as root, or as the daemon's user"}
        source = ""
    except (ProtocolError, ReplicaError, OSError) as error:
        found, source = {"error": str(error)}, ""
    if "error" in found:
        print(f"mxweir explain: {found['error']}", file=sys.stderr)
        return 2
    found["trail"] += [_not_decided(rule) for rule in config.limit if rule.by_content]
    print(json.dumps(found) if args.json else _text(found, source))
    return 0 if args.json or found["verdict"] == "pass" else 1


def _attributes(args: argparse.Namespace) -> dict[str, str]:
    given = {name: value for option, name in _GIVEN.items() if (value := getattr(args, option)) is not None}
    if given.get("sender") == NULL_SENDER:
        given["sender"] = ""  # as Postfix sends it
    if given:
        return {"protocol_state": "RCPT"} | given
    text = sys.stdin.buffer.read(MAX_REQUEST + 1)
    if len(text) > MAX_REQUEST:
        raise ProtocolError("request too large")
    # Lines end in a newline and nothing else: clients may send form feeds, and Postfix passes them on.
    lines = text.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n\n")[0].split("\n")
    pairs = [line.partition("=") for line in lines if line]
    if not pairs or not all(equals for _, equals, _ in pairs):
        raise ProtocolError("stdin holds no policy request: lines of name=value, as Postfix sends them")
    return {name: value for name, _, value in pairs}


def _explain(config: Config, attributes: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Ask the running daemon; where there is none, use what the last one saved."""
    answer = control.ask(config.state_dir, "policyd", {"explain": attributes})
    if answer is not None:
        return answer, "the running daemon"
    clock = system_clock()
    replica = Replica(config.state_dir)
    try:
        pipeline = build_pipeline(
            config, reading(config, replica), commands=_commands(config.state_dir, clock())
        )
        try:
            snapshot.read(snapshot_path(config.state_dir), pipeline.limits, clock())
            source = "no daemon runs; the counters are those it saved last"
        except (snapshot.SnapshotError, OSError):
            source = "no daemon runs, and no counters were saved"
        facts = facts_of(pipeline, attributes)
        return explain(pipeline, facts, clock()), source
    finally:
        replica.close()


def _not_decided(rule: LimitRule) -> dict[str, str]:
    """What is said of a limit by content: there is no message here."""
    keys = dict.fromkeys(key for key in (*rule.key, rule.distinct) if key in CONTENT_KEYS)
    note = f"only the message shows {' and '.join(keys)}: the milter asks it"
    return Step("limits", rule.name, "", "not decided", note=note)._asdict()


def _commands(state_dir: Path, now: float) -> Index:
    """The access entries that operators made by command, as the last daemon knew them."""
    book = Book()
    with suppress(kept.DamagedError, OSError):
        book.load(*kept.read(kept.list_path(state_dir)), now)
    return book.index


def _text(found: dict[str, Any], source: str) -> str:
    rows = [
        [step["check"], step["outcome"], step["rule"], step["figure"], step["key"], step["note"]]
        for step in found["trail"]
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    domains = [f"domains {found['domains']}"] if found.get("domains") else []
    lines = [f"action  {found['action']}", f"source  {source}", *domains, ""]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False) if width]
        lines.append(f"  {'  '.join(cells)}  {row[5]}".rstrip())
    return "\n".join(lines)
