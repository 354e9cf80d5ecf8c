"""The scanner against real scanners, whole, frozen, absent and coming back; what its clients do with
hostile ones is in tests/milter/engines."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from mxweir.breaker import State
from mxweir.config import loads
from mxweir.deadline import Deadline
from mxweir.endpoint import Endpoint, Inet
from mxweir.events import Switched
from mxweir.testing import Recorder
from mxweir_milter.message import Message
from mxweir_milter.scanner import Scanner, build
from mxweir_milter.testing import ENVELOPE, message
from mxweir_milter.verdict import Failed, Reason, Result, Scored
from mxweir_ops.lab import letters
from mxweir_ops.lab.letters import letter
from mxweir_ops.lab.place import free_port, temporary_directory
from mxweir_ops.lab.rspamd import PASSWORD, Rspamd
from mxweir_ops.lab.spamd import Spamd

SLACK = 20.0
"""Seconds that a busy machine may need beyond a deadline."""

RSPAMD_RULES = """\
regexp {
    LAB_VIRUS { re = "/mxweir-lab-virus/{body}"; score = 0.1; }
    LAB_LATER { re = "/mxweir-lab-later/{body}"; score = 0.1; }
    LAB_FRIEND { re = "/mxweir-lab-friend/{body}"; score = 50.0; }
}
force_actions {
    rules {
        LAB_FORCED_REJECT { action = "reject"; expression = "LAB_VIRUS"; }
        LAB_FORCED_SOFT { action = "soft reject"; expression = "LAB_LATER"; }
        LAB_FORCED_NOTHING { action = "no action"; expression = "LAB_FRIEND"; }
    }
}
settings { lab { priority = high; from = "skipped@sender.example"; want_spam = yes; } }
"""


@pytest.fixture(scope="module")
def ruled() -> Iterator[Rspamd]:
    """An Rspamd that forces actions."""
    with temporary_directory() as directory, Rspamd(directory, RSPAMD_RULES) as server:
        yield server


def table(kind: str, address: Endpoint, more: str = "") -> str:
    """An engine's table in the configuration."""
    return f'[[milter.engine]]\ntype = "{kind}"\naddress = "{address}"\n{more}\n'


def scanner(*tables: str, milter: str = "") -> tuple[Scanner, Recorder]:
    """The scanner of a configuration, and what it observes."""
    recorder = Recorder()
    return build(loads(f"[milter]\n{milter}\n{''.join(tables)}").milter, recorder), recorder


def asked(text: str, sender: str = ENVELOPE.sender) -> Message:
    """A letter as the milter hands it over."""
    whole = message(letter(text, "<lab@sender.example>").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    return whole._replace(envelope=ENVELOPE._replace(sender=sender))


async def scored(made: Scanner, text: str, sender: str = ENVELOPE.sender) -> Scored:
    """The result for a letter, which must be one."""
    result = await made.scan(asked(text, sender), Deadline.after(60))
    assert isinstance(result, Scored), result
    return result


async def until(true: Callable[[Result], bool], again: Callable[[], Awaitable[Result]]) -> Result:
    """Scan again and again until a result is as wanted."""
    end = time.monotonic() + 60
    while not true(result := await again()):
        assert time.monotonic() < end, result
        await asyncio.sleep(0.02)
    return result


async def test_both_tell_spam_from_ham_in_one_shape(spamd: Spamd, rspamd: Rspamd) -> None:
    for kind, address, action in (("spamd", spamd.endpoint, ""), ("rspamd", rspamd.endpoint, "reject")):
        made, _ = scanner(table(kind, address))
        spam, ham = await scored(made, letters.GTUBE), await scored(made, letters.HONEST)
        assert spam.score >= spam.threshold > ham.score
        assert "GTUBE" in spam.symbols
        assert (spam.engine, spam.action) == (kind, action)
        assert 0 < spam.seconds < 60


async def test_rspamd_sees_the_client_and_the_envelope(rspamd: Rspamd) -> None:
    made, _ = scanner(table("rspamd", rspamd.endpoint))
    same = await scored(made, letters.HONEST, "x@other.example")
    other = await scored(made, letters.HONEST, "")
    assert "FROM_NEQ_ENVFROM" in same.symbols
    assert "FROM_NEQ_ENVFROM" not in other.symbols


async def test_rspamds_controller_wants_the_password(rspamd: Rspamd) -> None:
    made, _ = scanner(table("rspamd", rspamd.guarded, f'password = "{PASSWORD}"'))
    assert (await scored(made, letters.GTUBE)).action == "reject"
    without, recorder = scanner(table("rspamd", rspamd.guarded, 'password = "hunter2"'))
    result = await without.scan(asked(letters.HONEST), Deadline.after(60))
    assert isinstance(result, Failed)
    assert result.reason is Reason.BAD_ANSWER
    assert "401 Unauthorized" in result.detail
    assert "hunter2" not in f"{result}{recorder.events}"


@pytest.mark.parametrize(
    ("text", "action"),
    [("mxweir-lab-virus", "reject"), ("mxweir-lab-later", "soft reject"), ("mxweir-lab-friend", "no action")],
)
async def test_an_action_that_rspamd_is_made_to_take_counts_as_its_score(
    ruled: Rspamd, text: str, action: str
) -> None:
    made, _ = scanner(table("rspamd", ruled.endpoint))
    result = await scored(made, f"{text}\n")
    assert result.action == action
    if action == "reject":
        assert result.score >= result.threshold
    else:
        assert result.score < result.threshold


async def test_a_message_that_rspamd_is_set_to_skip_is_not_called_scanned(ruled: Rspamd) -> None:
    made, _ = scanner(table("rspamd", ruled.endpoint))
    result = await made.scan(asked(letters.HONEST, "skipped@sender.example"), Deadline.after(60))
    assert isinstance(result, Failed)
    assert result.reason is Reason.ENGINE_SKIPPED


async def test_a_thousand_recipients_do_not_keep_rspamd_from_scanning(rspamd: Rspamd) -> None:
    recipients = tuple(f"{'x' * 60}{number}@{'y' * 60}.example.org" for number in range(1000))
    made, _ = scanner(table("rspamd", rspamd.endpoint))
    whole = asked(letters.GTUBE)
    whole = whole._replace(envelope=whole.envelope._replace(recipients=recipients, recipient_count=1000))
    result = await made.scan(whole, Deadline.after(60))
    assert isinstance(result, Scored)


async def test_while_one_is_frozen_the_other_answers_within_the_deadline_and_then_it_is_asked_again(
    rspamd: Rspamd,
) -> None:
    with temporary_directory() as directory, Spamd(directory) as spamd:
        breaker = '[milter.breaker]\nmin_calls = 2\nprobes = 1\npause = "200ms"\n'
        made, recorder = scanner(table("spamd", spamd.endpoint), table("rspamd", rspamd.endpoint), breaker)

        async def scan() -> Result:
            return await made.scan(asked(letters.GTUBE), Deadline.after(8.0))

        spamd.freeze()
        began = time.monotonic()
        results = await asyncio.gather(scan(), scan(), scan())
        assert time.monotonic() - began < 8.0 + SLACK
        assert {result.engine for result in results} == {"rspamd"}
        assert made.lanes[0].gate.breaker.state is State.OPEN
        assert (await scan()).engine == "rspamd"
        spamd.thaw()
        # A probe that took long is a scan, and the breaker stays open.
        await until(lambda _: made.lanes[0].gate.breaker.state.value == "closed", scan)
        await until(lambda result: result.engine == "spamd", scan)
    assert [event.state for event in recorder.events if isinstance(event, Switched)] == ["open", "closed"]


async def test_a_scanner_that_starts_slowly_is_found_when_it_is_there() -> None:
    with temporary_directory() as directory:
        server = Rspamd(directory, port=free_port())
        assert isinstance(server.endpoint, Inet)
        breaker = '[milter.breaker]\nmin_calls = 2\nprobes = 1\npause = "200ms"\n'
        made, _ = scanner(table("rspamd", server.endpoint), breaker)

        async def scan() -> Result:
            return await made.scan(asked(letters.GTUBE), Deadline.after(3.0))

        absent = await scan()
        assert isinstance(absent, Failed)
        assert absent.reason is Reason.UNREACHABLE
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        try:
            assert isinstance(await until(lambda result: isinstance(result, Scored), scan), Scored)
        finally:
            await starting
            await asyncio.to_thread(server.stop)


async def test_more_messages_than_slots_are_all_scanned_in_turn(spamd: Spamd) -> None:
    made, _ = scanner(table("spamd", spamd.endpoint, "max_scans = 2"), milter='slot_wait = "1m"')
    results = await asyncio.gather(*(made.scan(asked(letters.GTUBE), Deadline.after(60)) for _ in range(8)))
    assert all(isinstance(result, Scored) for result in results)
    assert made.lanes[0].gate.in_hand == 0
