"""How the daemon stops, and what it remembers afterwards."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mxweir.config import loads
from mxweir.facts import Folder
from mxweir.ratelimit import snapshot
from mxweir.ratelimit.limits import Limits, identity
from mxweir_ops.lab.asking import USUAL
from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import format_request

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

REQUEST = format_request(USUAL)
SLACK = 30.0
"""Seconds that a busy machine may add to whatever has a bound."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_ends_it_with_status_0_and_takes_its_sockets_away(
    own: "Policyd", number: signal.Signals
) -> None:
    own.start()
    with own.client() as idle:
        assert idle.ask() == "DUNNO"
        own.child.send(number)
        assert own.child.wait(SLACK) == 0
        assert idle.is_closed()
    assert own.records(event="stopped")
    assert not list(own.directory.rglob("*policy")) + list(own.state.glob("*.control"))
    assert "Traceback" not in own.log()


def test_a_request_half_sent_when_the_stop_comes_is_answered(own: "Policyd") -> None:
    own.configure(drain='"60s"')
    own.start()
    with own.client() as half, own.client() as idle:
        half.send(REQUEST[:50])
        assert idle.ask() == "DUNNO"
        own.child.send(signal.SIGTERM)
        assert idle.is_closed()
        half.send(REQUEST[50:])
        assert half.answer() == "DUNNO"
        assert half.is_closed()
    assert own.child.wait(SLACK) == 0


def test_new_connections_are_refused_once_the_stop_has_begun(own: "Policyd") -> None:
    own.start()
    with own.client() as half:
        half.send(REQUEST[:50])
        own.child.send(signal.SIGTERM)

        def refused() -> bool:
            try:
                own.client().close()
            except OSError:
                return True
            return False

        assert wait_until(refused, SLACK)


def test_a_request_that_never_ends_holds_up_the_stop_for_the_drain_time_and_no_longer(own: "Policyd") -> None:
    own.configure(drain='"500ms"')
    own.start()
    with own.client() as half:
        half.send(REQUEST[:50])
        assert own.ask() == "DUNNO"
        begin = time.monotonic()
        own.child.send(signal.SIGTERM)
        assert own.child.wait(0.5 + SLACK) == 0
        assert time.monotonic() - begin > 0.4
        assert half.is_closed()


def test_counters_outlive_a_restart(own: "Policyd") -> None:
    own.start()
    for number in range(3):
        assert own.ask(sender="bert@a.example", instance=str(number)) == "DUNNO"
    own.stop()
    own.start()
    assert own.ask(sender="bert@a.example", instance="4").startswith("550")
    assert own.ask(sender="carol@a.example", instance="5") == "DUNNO"
    assert own.wait_for(event="counters loaded")["count"] == 1


def test_counters_outlive_a_crash_but_for_the_last_moments(own: "Policyd") -> None:
    own.configure(save_every='"1s"')
    own.start()
    for number in range(3):
        own.ask(sender="bert@a.example", instance=str(number))
    saved = own.state / "limits.state"
    assert wait_until(lambda: saved.exists() and b"bert@a.example" in saved.read_bytes(), SLACK)
    own.kill()
    own.start()
    assert own.ask(sender="bert@a.example", instance="4").startswith("550")


NOW = 1_800_000_000.0


def limits(now: float = NOW, **used: float) -> Limits:
    """The limit by sender of the tests, with this much in use by these senders at a.example."""
    (rule,) = loads('[[limit]]\nname = "sender"\nkey = "sender"\nrate = "3/day"\n').limit
    made = Limits([rule], Folder())
    rows = [(f"{name}@a.example", count) for name, count in used.items()]
    made.load(identity(rule), rows, now, 0.0)
    return made


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda whole: whole[: len(whole) // 2],
    "without its last line": lambda whole: whole[: whole.rstrip(b"\n").rfind(b"\n") + 1],
    "empty": lambda whole: b"",
    "with another key": lambda whole: whole.replace(b"a.example", b"b.example", 1),
    "of another program": lambda whole: b"\x89PNG\r\n\x1a\n",
    "of another version": lambda whole: whole.replace(b"mxweir limits 1", b"mxweir limits 9"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=list(SPOILED))
def test_a_state_file_that_was_spoiled_is_set_aside_and_told_and_counting_begins_anew(
    own: "Policyd", spoil: Callable[[bytes], bytes]
) -> None:
    saved = own.state / "limits.state"
    now = time.time()  # the daemon's clock
    snapshot.write(saved, limits(now, bert=3.0), now)
    spoiled = spoil(saved.read_bytes())
    saved.write_bytes(spoiled)
    own.start()
    told = own.wait_for(event="counters not loaded")["detail"]
    assert told.startswith(f"{saved}: ")
    assert told.endswith("kept as limits.broken, counting from zero")
    assert (own.state / "limits.broken").read_bytes() == spoiled
    assert own.ask(sender="bert@a.example") == "DUNNO"


def test_a_save_that_a_stop_interrupts_leaves_the_one_that_the_stop_makes(tmp_path: Path) -> None:
    path = tmp_path / "limits.state"
    counted = limits(**{f"s{number}": 3.0 for number in range(100)})
    interrupted = snapshot.Writer(path, counted, NOW).steps()
    next(interrupted)
    snapshot.write(path, counted, NOW + 1000.0)
    del interrupted
    assert snapshot.read(path, limits(), NOW + 1000.0) == 100


def test_a_log_that_cannot_be_written_changes_no_answer(own: "Policyd") -> None:
    with Path("/dev/full").open("w") as full:
        daemon = subprocess.Popen(command("policyd", own.config_file), stderr=full, stdout=full)
    try:
        assert wait_until(lambda: own.page("/readyz")[0] == 200, 20)
        assert own.ask() == "DUNNO"
        assert own.ask(recipient="x@foreign.example").startswith("550")
    finally:
        daemon.terminate()
        assert daemon.wait(SLACK) == 0
