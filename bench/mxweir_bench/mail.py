"""CPU time a message through real Postfix: without a policy service, with the no-op server, with mxweir.

One question adds a few hundredths of a millisecond to a message that costs
more than one, which is no more than two runs of the same set-up differ by.
So the mail is of two kinds: with one recipient, which is what most mail has,
and with twenty, each of them a question, so that the part that is sought
stands out of the noise. The ratio is judged by the second.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mxweir_bench import delivery, servers
from mxweir_bench.compare import Spread, added
from mxweir_bench.delivery import SESSIONS, Mail, Run, Setup
from mxweir_bench.report import Part, Target, at_most, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools

SINGLE, MANY = Mail(250, 1), Mail(100, 20)


@dataclass(frozen=True, slots=True)
class Row:
    """One set-up; `added_ms` is the CPU time a message over that of the first set-up."""

    name: str
    rounds: tuple[Run, ...]
    added_ms: Spread

    def median(self, figure: str) -> float:
        """The median of one of Run's figures."""
        return delivery.median(self.rounds, figure)


def part(tools: Tools, directory: Path, rounds: int) -> Part:
    """Postfix alone, with the no-op server, and with mxweir with and without a log line a decision."""
    home = directory / "mail"
    home.mkdir()
    with ExitStack() as stack:
        asked = {
            "none": None,
            "noop": stack.enter_context(servers.noop(tools.noop, home)),
            "mxweir": stack.enter_context(servers.mxweir("mxweir", home)),
            "mxweir with log": stack.enter_context(servers.mxweir("mxweir with log", home, level="info")),
        }
        setups = [stack.enter_context(setup(name, home, server)) for name, server in asked.items()]
        single, many = (measure(setups, mail, rounds) for mail in (SINGLE, MANY))
    text = f"""\
## CPU time a message, through Postfix

Asked at RCPT over loopback TCP. {rounds} rounds of {SINGLE.messages} messages with one recipient and of
{MANY.messages} with {MANY.recipients}, {SINGLE.size // 1024} KiB, a connection each, {SESSIONS} sessions; the
queue in memory, transport `discard`. CPU of Postfix, client and policy server together until the queue is
empty; medians, and what each adds to "none" in the same round, with the middle half of the rounds.
{disturbances([run.others_cpu for row in (*single, *many) for run in row.rounds])}

One recipient a message:

{markdown(single)}

{MANY.recipients} recipients a message:

{markdown(many)}"""
    return Part({"single": _figures(single), "many": _figures(many)}, text, [_target(many)])


@contextmanager
def setup(name: str, directory: Path, server: Server | None) -> Iterator[Setup]:
    """A Postfix that asks this server at each RCPT; LabError when it cannot be had."""
    ask = ""
    if server:
        ask = f"check_policy_service {{ inet:{server.address}, try_limit=2, default_action=DUNNO }}, "
    settings = {"smtpd_recipient_restrictions": f"{ask}permit_mynetworks, reject"}
    with delivery.postfix(name, directory, settings) as postfix:
        yield Setup(name, postfix, "policy", server.pids if server else tuple)


def measure(setups: Sequence[Setup], mail: Mail, rounds: int) -> list[Row]:
    """Send the same mail through each in turn; the first is the one without a policy server."""
    runs = delivery.measure(setups, mail, rounds)
    without = delivery.figures(runs[setups[0].name], "cpu_ms")
    return [Row(name, tuple(of), added(delivery.figures(of, "cpu_ms"), without)) for name, of in runs.items()]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table; `added : noop` is relative to the row of that name."""
    base = next(row for row in rows if row.name == "noop").added_ms.median
    return table(
        ("asked", "messages/s", "CPU ms/message", "added", "added : noop", "server's own"),
        (
            (
                row.name,
                f"{row.median('rate'):,.0f}",
                f"{row.median('cpu_ms'):.3f}",
                f"{row.added_ms.median:+.3f} ({row.added_ms.low:+.3f} to {row.added_ms.high:+.3f})",
                f"{row.added_ms.median / base:.2f}",
                f"{row.median('server_cpu_ms'):.3f}",
            )
            for row in rows
        ),
    )


def _target(rows: Sequence[Row]) -> Target:
    """Twice what the no-op server adds; missed, too, when that cannot be told from nothing."""
    what, added = "CPU added by a question, mxweir : noop", {row.name: row.added_ms for row in rows}
    if added["noop"].low <= 0:
        return Target(what, "at most 2 times", "lost in the noise", met=False)
    return at_most(what, added["mxweir"].median / added["noop"].median, 2, "times")


def _figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
