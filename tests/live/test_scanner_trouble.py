"""A scanner that is absent, silent or lying: mail is accepted inside the deadline, and marked.

The tests have a socket where the engine should be, and put behind it what they
like.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mxweir.endpoint import Unix
from mxweir_ops.lab import letters
from mxweir_ops.lab.client import send
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack

ANNA = "anna@example.org"
DEADLINE = 4.0
SLACK = 12.0
"""Seconds that Postfix, this test and a busy machine may need on top of the deadline; five messages, one
after the other, would take longer than both."""


@pytest.fixture(scope="module")
def troubled() -> Iterator[Stack]:
    """A stack whose engine's socket belongs to the tests of this module."""
    with temporary_directory() as directory:
        plan = Plan(
            engine=Unix(str(directory / "engine")),
            milter=f'deadline = "{DEADLINE * 1000:.0f}ms"',
            # Each test shall meet the scanner itself, and not the breaker that the one before has opened.
            rest='[log]\nformat = "json"\n[milter.breaker]\nmin_calls = 10000\n',
        )
        with Stack(directory, plan) as stack:
            yield stack


@pytest.fixture
def engine(troubled: Stack) -> Iterator[socket.socket]:
    """A listening socket at the engine's address; nobody accepts."""
    assert isinstance(troubled.plan.engine, Unix)
    path = Path(troubled.plan.engine.path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield listener
    path.unlink()


def marked(stack: Stack, sender: str) -> tuple[str, float]:
    """What X-Spam-Status an accepted message arrives with, and the seconds until Postfix had accepted it."""
    message_id = new_message_id()
    began = time.monotonic()
    outcome = send(stack.port, sender, [ANNA], letter(letters.GTUBE, message_id))
    took = time.monotonic() - began
    assert outcome.accepted, outcome
    (delivery,) = stack.maildir.wait_for(message_id)
    assert [name for name in delivery.message if name.startswith("X-Spam")] == ["X-Spam-Status"]
    return delivery.header("X-Spam-Status") or "", took


@contextmanager
def answering(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Let `serve` have the first connection, in a thread."""

    def accept() -> None:
        client, _ = listener.accept()
        with client:
            serve(client)

    # A daemon: if nobody connects, a failed test shall not become one that never ends.
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)


def test_an_absent_scanner_costs_no_time_and_mail_is_marked(troubled: Stack, sender: str) -> None:
    status, took = marked(troubled, sender)
    assert status == "unscanned, reason=engine unreachable"
    assert took < DEADLINE + SLACK


def test_a_scanner_that_accepts_and_never_answers_costs_the_deadline_and_mail_is_marked(
    troubled: Stack, engine: socket.socket, sender: str
) -> None:
    status, took = marked(troubled, sender)
    assert status == "unscanned, reason=deadline"
    assert took < DEADLINE + SLACK


def test_a_scanner_that_hangs_up_is_no_verdict(troubled: Stack, engine: socket.socket, sender: str) -> None:
    with answering(engine, lambda client: None):
        status, _ = marked(troubled, sender)
    assert status.startswith("unscanned, reason=")


@pytest.mark.parametrize(
    "answer",
    [
        b"SPAMD/1.1 0 EX_OK\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; nan / 5.0\r\n\r\n",
        b"SPAMD/1.1 76 Bad header line\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\0" * 100_000,
    ],
)
def test_an_answer_without_a_score_is_no_verdict(
    troubled: Stack, engine: socket.socket, sender: str, answer: bytes
) -> None:
    def serve(client: socket.socket) -> None:
        while client.recv(65536):
            pass
        client.sendall(answer)

    with answering(engine, serve):
        status, _ = marked(troubled, sender)
    assert status == "unscanned, reason=bad answer"


def test_several_messages_wait_for_a_silent_scanner_side_by_side(
    troubled: Stack, engine: socket.socket, sender: str
) -> None:
    results: list[tuple[str, float]] = []
    threads = [threading.Thread(target=lambda: results.append(marked(troubled, sender))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert [status for status, _ in results] == ["unscanned, reason=deadline"] * 5
    assert max(took for _, took in results) < DEADLINE + SLACK


def test_a_frozen_spamd_costs_the_deadline_and_a_thawed_one_scans_again(
    new_stack: Callable[..., Stack], sender: str
) -> None:
    with temporary_directory() as directory, Spamd(directory) as spamd:
        stack = new_stack(engine=spamd.endpoint, milter='deadline = "10s"')
        spamd.freeze()
        status, took = marked(stack, sender)
        assert status == "unscanned, reason=deadline"
        assert took < 10.0 + SLACK
        spamd.thaw()
        assert wait_until(spamd.answers, 60)
        message_id = new_message_id()
        assert send(stack.port, sender, [ANNA], letter(message_id=message_id)).accepted
        assert stack.maildir.wait_for(message_id)[0].header("X-Spam-Flag") == "NO"


def engine_table(kind: str, engine: HostileEngine) -> str:
    """One more engine for a stack's configuration."""
    return f'[[milter.engine]]\ntype = "{kind}"\naddress = "{engine.endpoint}"\n'


def test_a_silent_scanner_is_left_alone_after_a_while_and_the_other_answers_without_delay(
    new_stack: Callable[..., Stack], sender: str
) -> None:
    with (
        temporary_directory() as directory,
        HostileEngine("spamd", Unix(f"{directory}/spamd"), Manner.SILENT) as silent,
        HostileEngine("rspamd", Unix(f"{directory}/rspamd"), Manner.PROMPT, score=7.0) as other,
    ):
        breaker = '[milter.breaker]\nmin_calls = 2\npause = "1h"\n'
        stack = new_stack(
            engine=silent.endpoint,
            milter=f'deadline = "{DEADLINE * 1000:.0f}ms"',
            rest=engine_table("rspamd", other) + breaker,
        )
        for _ in range(3):
            message_id = new_message_id()
            assert send(stack.port, sender, [ANNA], letter(message_id=message_id)).accepted
            (delivery,) = stack.maildir.wait_for(message_id)
            assert delivery.headers("X-Spam-Scanner") == ["mxweir rspamd"]
            assert delivery.headers("X-Spam-Score") == ["7.0"]
        assert silent.requests == 2
        assert "breaker opened" in stack.milter.log()


def test_while_all_breakers_are_open_mail_passes_and_says_so(
    new_stack: Callable[..., Stack], sender: str
) -> None:
    with (
        temporary_directory() as directory,
        HostileEngine("spamd", Unix(f"{directory}/spamd"), Manner.CLOSING) as one,
        HostileEngine("rspamd", Unix(f"{directory}/rspamd"), Manner.GARBAGE) as other,
    ):
        stack = new_stack(
            engine=one.endpoint,
            rest=engine_table("rspamd", other) + '[milter.breaker]\nmin_calls = 1\npause = "1h"\n',
        )
        statuses = [marked(stack, sender)[0] for _ in range(3)]
        assert statuses == ["unscanned, reason=bad answer"] + ["unscanned, reason=breaker open"] * 2
        assert (one.connections, other.connections) == (1, 1)
