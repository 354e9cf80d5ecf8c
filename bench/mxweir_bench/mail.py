"""CPU time a message through real Postfix: without a policy service, with the no-op server, with mxweir.

Each set-up has a private Postfix of its own that accepts mail on loopback and
discards it; its queue is in memory, so that no disk hides what a policy
server adds. The set-ups take turns, and the queue is empty before a run ends.

One question adds a few hundredths of a millisecond to a message that costs
more than one, which is no more than two runs of the same set-up differ by.
So the mail is of two kinds: with one recipient, which is what most mail has,
and with twenty, each of them a question, so that the part that is sought
stands out of the noise. The ratio is judged by the second.

CPU time is that of the processes involved (Postfix, client, policy server),
each counted by the kernel: what else runs on the machine is left out.
"""

import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mxweir_bench import servers, usage
from mxweir_bench.compare import Spread, added, spread
from mxweir_bench.load import InvalidRunError
from mxweir_bench.report import Part, Target, at_most, disturbances, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.postfix import Postfix
from mxweir_ops.lab.process import program, wait_until

_SESSIONS, _BYTES = 20, 4096


@dataclass(frozen=True, slots=True)
class Mail:
    """What is sent in one run: messages, and recipients of each."""

    messages: int
    recipients: int


SINGLE, MANY = Mail(250, 1), Mail(100, 20)


@dataclass(frozen=True, slots=True)
class Setup:
    """A running Postfix and the policy server that it asks; None for none."""

    name: str
    postfix: Postfix
    server: Server | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: messages a second, CPU milliseconds a message, and the share of a core that others took."""

    rate: float
    cpu_ms: float
    server_cpu_ms: float
    others_cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One set-up; `added_ms` is the CPU time a message over that of the first set-up."""

    name: str
    rounds: tuple[Run, ...]
    added_ms: Spread

    def median(self, figure: str) -> float:
        """The median of one of Run's figures."""
        return spread([getattr(run, figure) for run in self.rounds]).median


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
{MANY.messages} with {MANY.recipients}, {_BYTES // 1024} KiB, a connection each, {_SESSIONS} sessions; queue
in memory, transport `discard`. CPU of Postfix, client and policy server together until the queue is
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
    place = directory / f"behind {name}".replace(" ", "-")
    place.mkdir()
    ask = ""
    if server:
        ask = f"check_policy_service {{ inet:{server.address}, try_limit=2, default_action=DUNNO }}, "
    settings = {
        "relay_transport": "discard",
        "default_transport": "discard",
        # Otherwise each smtpd is replaced after 100 sessions, and chance decides whose run pays for it.
        "max_use": "1000000",
        "smtpd_recipient_restrictions": f"{ask}permit_mynetworks, reject",
    }
    with Postfix(place, settings) as postfix:
        yield Setup(name, postfix, server)


def measure(setups: Sequence[Setup], mail: Mail, rounds: int) -> list[Row]:
    """Send the same mail through each in turn; the first is the one without a policy server."""
    for each in setups:
        _run(each, mail)  # every smtpd process has started and knows its server
    runs: dict[str, list[Run]] = {each.name: [] for each in setups}
    for _ in range(rounds):
        for each in setups:
            runs[each.name].append(_run(each, mail))
    without = [run.cpu_ms for run in runs[setups[0].name]]
    return [Row(name, tuple(of), added([run.cpu_ms for run in of], without)) for name, of in runs.items()]


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


def _run(each: Setup, mail: Mail) -> Run:
    """Send, and wait until the queue is empty.

    InvalidRunError when mail was refused, stays, or Postfix complained of its
    policy server (and so let mail pass without an answer).
    """
    before, started = _cpu(each), time.monotonic()
    done = subprocess.run(_client(each.postfix.port, mail), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise InvalidRunError(f"{each.name}: smtp-source: {done.stderr.strip()[:300]}")
    if not wait_until(lambda: not any(each.postfix.queued().values()), 60):
        raise InvalidRunError(f"{each.name}: the queue does not empty: {each.postfix.queued()}")
    if complaints := [line for line in each.postfix.complaints() if "policy" in line]:
        raise InvalidRunError(f"{each.name}: {complaints[0]}")
    ours, server, machine = (now - then for now, then in zip(_cpu(each), before, strict=True))
    others = max(0.0, machine - ours) / (time.monotonic() - started)
    return Run(mail.messages / seconds, 1000 * ours / mail.messages, 1000 * server / mail.messages, others)


def _client(port: int, mail: Mail) -> list[str]:
    """smtp-source with different recipients for each message."""
    numbers = f"-s {_SESSIONS} -l {_BYTES} -m {mail.messages} -r {mail.recipients}".split()
    envelope = ["-N", "-M", "client.example", "-f", "sender@example.com", "-t", "rcpt@rcptdom1.example"]
    return [str(program("smtp-source", "postfix")), *numbers, *envelope, f"127.0.0.1:{port}"]


def _cpu(each: Setup) -> tuple[float, float, float]:
    """CPU seconds so far: Postfix, client and policy server; the policy server alone; the machine."""
    master = int((each.postfix.directory / "spool" / "pid" / "master.pid").read_text())
    client = resource.getrusage(resource.RUSAGE_CHILDREN)
    server = usage.cpu_seconds(each.server.pids()) if each.server else 0.0
    ours = usage.cpu_seconds(usage.session(master)) + client.ru_utime + client.ru_stime + server
    return ours, server, usage.machine_cpu_seconds()


def _figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
