"""Worker processes that are killed while Postfix asks: nothing lost, refused, or counted twice."""

import os
import signal
import smtplib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from mxweir.control import ask
from mxweir_ops.lab.asking import USUAL
from mxweir_ops.lab.client import Outcome, send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.redis import Redis
from mxweir_ops.lab.stack import Plan, Stack

ANNA = "anna@example.org"
RULES = """\
[redis]
url = "{url}"
timeout = "4s"

[[limit]]
name = "mailbox"
key = "recipient"
rate = "1000000/day"
window = true

[log]
format = "json"
"""
SETTINGS = 'workers = 2\ndeadline = "5s"'
"""The deadline, and with it Postfix's, is for a busy machine: each message has to be counted."""

SLACK = 90.0
CLIENTS = 3


@dataclass
class Traffic:
    """What clients were told who send one message after the other, each with its own Message-ID."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    faults: list[Exception] = field(default_factory=list)
    begun: dict[int, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def send(self, port: int) -> None:
        while not self.over.is_set():
            message_id = new_message_id()
            self.begun[threading.get_ident()] = time.monotonic()
            content = letter(message_id=message_id)
            try:
                self.outcomes[message_id] = send(port, "bert@sender.example", [ANNA], content)
            except (OSError, smtplib.SMTPException) as error:
                self.faults.append(error)

    def stuck(self) -> bool:
        """Whether a message is under way that nobody answers about."""
        return time.monotonic() - min(self.begun.values()) > 0.3

    def all_began_after(self, moment: float) -> bool:
        """Whether all messages that were under way at a moment are done."""
        return min(self.begun.values()) > moment

    def more(self) -> bool:
        """Whether it goes on."""
        so_far = len(self.outcomes)
        return wait_until(lambda: len(self.outcomes) > so_far + 5, SLACK)


@contextmanager
def traffic(stack: Stack) -> Iterator[Traffic]:
    sending = Traffic()
    threads = [threading.Thread(target=sending.send, args=(stack.port,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        assert sending.more()
        yield sending
        assert sending.more()
    finally:
        sending.over.set()
        for thread in threads:
            thread.join(60)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with temporary_directory() as directory, Redis(directory) as redis:
        plan = Plan(policyd=SETTINGS, rest=RULES.format(url=redis.unix_url))
        with temporary_directory() as place, Stack(place, plan) as made:
            yield made


def counted(stack: Stack) -> int:
    """Messages that the limit of the mailbox has counted."""
    question = {"explain": USUAL | {"recipient": ANNA, "policy_context": "limits"}}
    said = ask(stack.directory / "state", "policyd", question)
    assert said is not None
    (limit,) = [step for step in said["trail"] if step["rule"] == "mailbox"]
    return int(limit["figure"].partition("/")[0])


def replaced(stack: Stack, times: int) -> bool:
    """Whether so many workers were replaced."""
    return len(stack.policyd.records(event="worker replaced")) >= times


def test_workers_that_are_killed_in_the_midst_of_questions_cost_no_message_and_count_each_once(
    stack: Stack,
) -> None:
    with traffic(stack) as sending:
        for number in range(2):
            killed = stack.policyd.workers[number % 2]
            # Frozen first, so that it has read or waits to read a question when it dies.
            os.kill(killed, signal.SIGSTOP)
            wait_until(sending.stuck, 2)
            os.kill(killed, signal.SIGKILL)
            # Postfix asks twice: none of its second tries may meet the next worker that dies.
            assert wait_until(partial(sending.all_began_after, time.monotonic()), SLACK)
            assert wait_until(partial(replaced, stack, number + 1), SLACK)
    assert sending.faults == []
    assert [outcome for outcome in sending.outcomes.values() if not outcome.accepted] == []
    assert wait_until(lambda: set(stack.maildir.counts()) == set(sending.outcomes), SLACK)
    assert set(stack.maildir.counts().values()) == {1}
    assert counted(stack) == len(sending.outcomes)
    assert "problem talking to server" not in stack.mx.log()
