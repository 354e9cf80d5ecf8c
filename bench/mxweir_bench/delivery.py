"""Mail sent through private Postfix instances in turn, and what it cost.

Each set-up has a Postfix of its own that accepts mail on loopback and discards it;
its queue is in memory, so that no disk hides what is measured. The set-ups take
turns, round by round, and the queue is empty before a run ends.

CPU time is that of the processes involved (Postfix, client, and what Postfix
asks), each counted by the kernel: what else runs on the machine is left out.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mxweir_bench import usage
from mxweir_bench.compare import spread
from mxweir_bench.load import InvalidRunError
from mxweir_ops.lab.postfix import Postfix
from mxweir_ops.lab.process import program

SESSIONS = 20
"""SMTP clients at once where nothing else is said."""

_LOOK = 0.002
"""Seconds between two looks into the queue."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What is sent in one run: messages, recipients and bytes of each, SMTP clients at once.

    Each message has a connection of its own.
    """

    messages: int
    recipients: int = 1
    size: int = 4096
    sessions: int = SESSIONS


@dataclass(frozen=True, slots=True)
class Setup:
    """A running Postfix, and what it asks.

    `asks` is the word by which its complaints name that, `pids` are the processes
    of it; `answered`, if it is to be watched, counts the messages it was asked about.
    """

    name: str
    postfix: Postfix
    asks: str
    pids: Callable[[], Sequence[int]] = tuple
    answered: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: messages a second, CPU milliseconds a message, and the share of a core that others took.

    `busy` is the share of all processors' time in which they had something to do, others' work included.
    The clock stops when the last message is delivered, and not when it is accepted: mail that comes faster
    than it is delivered waits in the queue meanwhile.
    """

    rate: float
    cpu_ms: float
    server_cpu_ms: float
    others_cpu: float
    busy: float


Rounds = Mapping[str, Sequence[Run]]
"""Of each set-up by its name, the runs in their order."""


def median(runs: Sequence[Run], figure: str) -> float:
    """The median of one of Run's figures."""
    return spread(figures(runs, figure)).median


def figures(runs: Sequence[Run], figure: str) -> list[float]:
    """One of Run's figures, round by round."""
    return [getattr(run, figure) for run in runs]


def slug(name: str) -> str:
    """A name that stands in the tables as one that may stand in a path and in main.cf."""
    return re.sub(r"\W+", "-", name)


@contextmanager
def postfix(name: str, directory: Path, settings: Mapping[str, str]) -> Iterator[Postfix]:
    """A Postfix with these settings, in a directory of its own; LabError when it cannot be had."""
    place = directory / f"behind-{slug(name)}"
    place.mkdir()
    usual = {
        "relay_transport": "discard",
        "default_transport": "discard",
        # Otherwise each smtpd is replaced after 100 sessions, and chance decides whose run pays for it.
        "max_use": "1000000",
        "smtpd_recipient_restrictions": "permit_mynetworks, reject",
    }
    with Postfix(place, {**usual, **settings}) as running:
        yield running


def measure(setups: Sequence[Setup], mail: Mail, rounds: int) -> Rounds:
    """Send the same mail through each in turn, that many times, after once to warm up.

    Every other time from the last to the first: what one leaves behind in the caches, and what the machine
    does otherwise within a minute, meets both of two that are compared.
    """
    for each in setups:
        send(each, mail)  # every process of Postfix has started and knows whom it asks
    runs: dict[str, list[Run]] = {each.name: [] for each in setups}
    for number in range(rounds):
        for each in setups if number % 2 == 0 else reversed(setups):
            runs[each.name].append(send(each, mail))
    return runs


def send(each: Setup, mail: Mail) -> Run:
    """Send, and wait until the queue is empty.

    InvalidRunError when mail was refused, stays, or passed without an answer of
    what Postfix asks.
    """
    answered = each.answered() if each.answered else 0
    before, started = _cpu(each), time.monotonic()
    done = subprocess.run(client(each.postfix.port, mail), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidRunError(f"{each.name}: smtp-source: {done.stderr.strip()[:300]}")
    seconds = _delivered(each.postfix) - started
    after = _cpu(each)
    if any(each.postfix.queued().values()):
        raise InvalidRunError(f"{each.name}: the queue does not empty: {each.postfix.queued()}")
    if complaints := [line for line in each.postfix.complaints() if each.asks in line]:
        raise InvalidRunError(f"{each.name}: {complaints[0]}")
    if each.answered and (count := each.answered() - answered) != mail.messages:
        raise InvalidRunError(f"{each.name}: {count} of {mail.messages} messages were scanned")
    ours, server, machine = (now - then for now, then in zip(after, before, strict=True))
    count = mail.messages
    others, busy = max(0.0, machine - ours) / seconds, machine / seconds / (os.cpu_count() or 1)
    return Run(count / seconds, 1000 * ours / count, 1000 * server / count, others, busy)


def client(port: int, mail: Mail) -> list[str]:
    """smtp-source with different recipients for each message."""
    numbers = f"-s {mail.sessions} -l {mail.size} -m {mail.messages} -r {mail.recipients}".split()
    envelope = ["-N", "-M", "client.example", "-f", "sender@example.com", "-t", "rcpt@rcptdom1.example"]
    return [str(program("smtp-source", "postfix")), *numbers, *envelope, f"127.0.0.1:{port}"]


def _delivered(postfix: Postfix) -> float:
    """When nothing was on its way any more, within a minute; a message goes from `incoming` to `active`."""
    ways = [postfix.directory / "spool" / name for name in ("incoming", "active")]
    end = time.monotonic() + 60
    while any(next(way.iterdir(), None) for way in ways) and time.monotonic() < end:
        time.sleep(_LOOK)
    return time.monotonic()


def _cpu(each: Setup) -> tuple[float, float, float]:
    """CPU seconds so far: all processes involved; those that Postfix asks; the machine."""
    server = usage.cpu_seconds(each.pids())
    ours = usage.cpu_seconds(usage.session(each.postfix.master)) + usage.own_children_seconds() + server
    return ours, server, usage.machine_cpu_seconds()
