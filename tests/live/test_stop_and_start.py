"""Stopping, killing and starting the daemons while mail comes in: nothing lost, nothing double."""

import signal
import smtplib
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.client import Outcome, send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import program, wait_until
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack

ANNA = "anna@example.org"
BUSY = "busy@sender.example"
RULES = f"""\
[[limit]]
name = "sender"
key = "sender"
rate = "10/hour"
burst = 5
overrides = {{ "{BUSY}" = "100000/hour" }}

[[limit]]
name = "mailbox"
key = "recipient"
rate = "100000/hour"

[log]
format = "json"
"""


@dataclass
class Traffic:
    """What clients were told while they sent one message after the other, each with its own Message-ID."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    faults: list[Exception] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def refused(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes.values() if not outcome.accepted]

    def send(self, port: int) -> None:
        while not self.over.is_set():
            message_id = new_message_id()
            try:
                self.outcomes[message_id] = send(port, BUSY, [ANNA], letter(message_id=message_id))
            except (OSError, smtplib.SMTPException) as error:
                self.faults.append(error)


@contextmanager
def traffic(stack: Stack, clients: int = 3) -> Iterator[Traffic]:
    """Mail from several clients at once, from before the block until after it."""
    sending = Traffic()
    threads = [threading.Thread(target=sending.send, args=(stack.port,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(sending.outcomes) > 10, 120)
        yield sending
        so_far = len(sending.outcomes)
        assert wait_until(lambda: len(sending.outcomes) > so_far + 10, 120)
    finally:
        sending.over.set()
        for thread in threads:
            thread.join(60)


def each_delivered_once(stack: Stack, sending: Traffic) -> bool:
    def arrived() -> bool:
        counts = stack.maildir.counts()
        return all(counts[message_id] == outcome.accepted for message_id, outcome in sending.outcomes.items())

    return wait_until(arrived, 120)


@pytest.fixture(scope="module")
def one_stack(spamd: Spamd) -> Iterator[Stack]:
    plan = Plan(engine=spamd.endpoint, policyd='save_every = "1s"', rest=RULES)
    with temporary_directory() as directory, Stack(directory, plan) as stack:
        yield stack


@pytest.fixture
def stack(one_stack: Stack) -> Iterator[Stack]:
    """The module's stack; whatever a test stopped runs again after it."""
    yield one_stack
    for daemon in (one_stack.policyd, one_stack.milter):
        if not daemon.running:
            daemon.start()


def test_a_policy_daemon_that_is_stopped_and_started_amid_traffic_loses_doubles_and_refuses_nothing(
    stack: Stack,
) -> None:
    with traffic(stack) as sending:
        for _ in range(3):
            stack.policyd.stop()
            stack.policyd.start()
    assert not sending.faults
    assert not sending.refused()
    assert each_delivered_once(stack, sending)


def test_smtp_source_notices_nothing_of_a_restart_and_each_of_its_messages_arrives_once(stack: Stack) -> None:
    messages = 300
    source = subprocess.Popen(
        [
            *(str(program("smtp-source", "postfix")), "-s", "4", "-m", str(messages), "-f", BUSY),
            *("-t", "source@example.org", f"127.0.0.1:{stack.port}"),
        ]
    )
    try:
        assert wait_until(lambda: bool(to_source(stack)), 60)
        stack.policyd.stop()
        stack.policyd.start()
        # It ends with an error at the first reply that is not 2xx.
        assert source.wait(240) == 0
    finally:
        source.kill()
    assert wait_until(lambda: len(to_source(stack)) >= messages, 120)
    assert len(set(to_source(stack))) == len(to_source(stack)) == messages


def to_source(stack: Stack) -> list[str]:
    """Message-IDs of what smtp-source sent and Postfix delivered."""
    arrived = stack.maildir.deliveries()
    return [delivery.message_id for delivery in arrived if delivery.recipient == "source@example.org"]


def test_a_policy_daemon_that_is_killed_amid_traffic_loses_doubles_and_refuses_nothing(stack: Stack) -> None:
    with traffic(stack) as sending:
        stack.policyd.kill()
        so_far = len(sending.outcomes)
        assert wait_until(lambda: len(sending.outcomes) > so_far + 5, 120)
        stack.policyd.start()
    assert not sending.faults
    assert not sending.refused()
    assert each_delivered_once(stack, sending)


def test_a_milter_that_is_stopped_and_started_amid_traffic_loses_doubles_and_refuses_nothing(
    stack: Stack,
) -> None:
    with traffic(stack) as sending:
        for _ in range(2):
            stack.milter.stop()
            stack.milter.start()
        stack.milter.kill()
        stack.milter.start()
    assert not sending.faults
    assert not sending.refused()
    assert each_delivered_once(stack, sending)


def test_without_its_policy_daemon_postfix_takes_mail_for_our_domains_and_relays_for_nobody(
    stack: Stack, sender: str
) -> None:
    stack.policyd.kill()
    assert send(stack.port, sender, [ANNA], letter()).accepted
    assert send(stack.port, sender, ["dave@elsewhere.example"], letter()).last.code == 454


def test_a_frozen_policy_daemon_delays_postfix_and_stops_nothing_and_is_asked_again_once_thawed(
    stack: Stack, sender: str
) -> None:
    assert send(stack.port, sender, [ANNA], letter()).accepted
    stack.policyd.child.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as together:
            ours = together.submit(send, stack.port, sender, [ANNA], letter())
            foreign = together.submit(send, stack.port, sender, ["dave@elsewhere.example"], letter())
        assert ours.result().accepted
        assert foreign.result().last.code == 454
    finally:
        stack.policyd.child.send(signal.SIGCONT)
    codes: list[int] = []

    def refused_again() -> bool:
        codes.append(send(stack.port, sender, [f"dave{len(codes)}@elsewhere.example"], letter()).last.code)
        return codes[-1] == 550

    assert wait_until(refused_again, 90)


def test_counters_are_kept_across_a_restart(stack: Stack, sender: str) -> None:
    codes = [send(stack.port, sender, [ANNA], letter()).last.code for _ in range(3)]
    stack.policyd.stop()
    stack.policyd.start()
    codes += [send(stack.port, sender, [ANNA], letter()).last.code for _ in range(3)]
    assert codes == [250] * 5 + [550]


def test_counters_survive_a_kill_as_they_were_last_saved(stack: Stack, sender: str) -> None:
    saved = stack.directory / "state" / "limits.state"
    for _ in range(5):
        assert send(stack.port, sender, [ANNA], letter()).accepted
    charged = saved.stat().st_mtime_ns if saved.exists() else 0
    assert wait_until(lambda: saved.exists() and saved.stat().st_mtime_ns > charged, 60)
    charged = saved.stat().st_mtime_ns
    assert wait_until(lambda: saved.stat().st_mtime_ns > charged, 60)
    stack.policyd.kill()
    stack.policyd.start()
    assert send(stack.port, sender, [ANNA], letter()).last.code == 550


def test_a_request_that_postfix_repeats_on_a_new_connection_is_counted_once(
    stack: Stack, sender: str
) -> None:
    for _ in range(4):
        with PolicyClient(stack.addresses.policy) as client:
            assert client.ask(sender=sender, instance="a.1") == "DUNNO"
    with PolicyClient(stack.addresses.policy) as client:
        answers = [client.ask(sender=sender, instance=f"b.{number}") for number in range(5)]
    assert [answer[:5] for answer in answers] == ["DUNNO"] * 4 + ["550 5"]
