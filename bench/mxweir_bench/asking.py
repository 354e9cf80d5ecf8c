"""One Postfix that asks different policy servers, by the port that mail comes in at.

What a question adds to a message is a twentieth of what the message costs, and
two Postfix instances differ by more than that. So the set-ups share one
instance: the same queue and cleanup, warm and busy all the time. Only smtpd's
processes are their own, and these are counted apart, with the policy server's:
what the others spend is the same work in every set-up, and most of the noise.
"""

import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mxweir_bench import delivery, usage
from mxweir_bench.delivery import Mail
from mxweir_bench.load import InvalidRunError
from mxweir_bench.servers import Server
from mxweir_ops.lab.place import free_port
from mxweir_ops.lab.postfix import Postfix
from mxweir_ops.lab.process import wait_until

_SETTINGS = {
    "relay_transport": "discard",
    "default_transport": "discard",
    # No process is replaced meanwhile: chance would decide whose run pays for it.
    "max_use": "1000000",
    "max_idle": "1000s",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """One port of the Postfix, and the server that it asks at each RCPT, if any."""

    name: str
    port: int
    postfix: Postfix
    server: Server | None

    def server_pids(self) -> list[int]:
        """The processes of the policy server."""
        return self.server.pids() if self.server else []


@dataclass(frozen=True, slots=True)
class Run:
    """One run: messages a second, CPU in microseconds a message, turns at a processor a message.

    `elsewhere_us` is what Postfix's other processes and the client took, `others_cpu`
    the share of a core that the rest of the machine took.
    """

    rate: float
    smtpd_us: float
    server_us: float
    elsewhere_us: float
    server_turns: float
    others_cpu: float

    @property
    def asking_us(self) -> float:
        """Of those that take part in a question: smtpd and the policy server."""
        return self.smtpd_us + self.server_us

    @property
    def all_us(self) -> float:
        """Of all processes that mail passes through."""
        return self.asking_us + self.elsewhere_us


@contextmanager
def postfix(directory: Path, asked: Mapping[str, Server | None]) -> Iterator[list[Setup]]:
    """A Postfix with a port for each of these; LabError when it cannot be had."""
    ports = {name: free_port() for name in asked}
    settings = _SETTINGS | {_variable(name): _restrictions(server) for name, server in asked.items()}
    services = "".join(
        f"127.0.0.1:{port} inet n - n - 200 smtpd -o smtpd_recipient_restrictions=${_variable(name)}\n"
        for name, port in ports.items()
    )
    with Postfix(directory, settings, services=services) as running:
        yield [Setup(name, ports[name], running, server) for name, server in asked.items()]


def send(each: Setup, mail: Mail) -> Run:
    """Send, and wait until the queue is empty; InvalidRunError when mail was refused or stays."""
    before, started = _count(each), time.monotonic()
    done = subprocess.run(delivery.client(each.port, mail), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise InvalidRunError(f"{each.name}: smtp-source: {done.stderr.strip()[:300]}")
    if not wait_until(lambda: not any(each.postfix.queued().values()), 60):
        raise InvalidRunError(f"{each.name}: the queue does not empty: {each.postfix.queued()}")
    smtpd, server, rest, turns, machine = (now - then for now, then in zip(_count(each), before, strict=True))
    whole, us = time.monotonic() - started, 1e6 / mail.messages
    others = max(0.0, machine - smtpd - server - rest) / whole
    return Run(mail.messages / seconds, us * smtpd, us * server, us * rest, turns / mail.messages, others)


def measure(setups: Sequence[Setup], mail: Mail, rounds: int) -> dict[str, list[Run]]:
    """Send the same mail in at each port, round by round, each round in an order of its own.

    InvalidRunError also when some mail went on without an answer.
    """
    for each in (*setups, *setups):
        send(each, mail)  # every process has started, and knows whom it asks
    runs: dict[str, list[Run]] = {each.name: [] for each in setups}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for each in shuffle.sample(setups, len(setups)):
            runs[each.name].append(send(each, mail))
    if complaints := [line for line in setups[0].postfix.complaints() if "policy" in line]:
        raise InvalidRunError(f"Postfix: {complaints[0]}")
    return runs


def _variable(name: str) -> str:
    return f"restrictions_{delivery.slug(name).replace('-', '_')}"


def _restrictions(server: Server | None) -> str:
    ask = ""
    if server:
        ask = f"check_policy_service {{ inet:{server.address}, try_limit=2, default_action=DUNNO }}, "
    return f"{ask}permit_mynetworks, reject"


def _count(each: Setup) -> tuple[float, float, float, float, float]:
    """CPU seconds so far of this port's smtpd, the server, elsewhere; the server's turns; the machine's."""
    members = usage.session(each.postfix.master)
    smtpd = [pid for pid in members if f"127.0.0.1:{each.port}" in usage.arguments(pid)]
    elsewhere = usage.cpu_seconds(set(members) - set(smtpd)) + usage.own_children_seconds()
    pids = each.server_pids()
    server = usage.cpu_seconds(pids)
    return usage.cpu_seconds(smtpd), server, elsewhere, usage.turns(pids), usage.machine_cpu_seconds()
