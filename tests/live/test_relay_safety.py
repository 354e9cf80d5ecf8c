"""Each row of docs/failure.md's table on what relay safety rests on: the printed lines, and a real Postfix.

No row may relay for a stranger, and none may refuse a domain of ours for good.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mxweir_ops.lab.client import Client, Reply, send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.stack import Stack

NewStack = Callable[..., Stack]

DOMAINS = """\
ours.example
plain.example
.tree.example
bücher.example
hop.example   virtual:
.deep.example  error:next-hop-of-deep
"""
ONCE = {"smtpd_recipient_restrictions": ""}
"""Has a daemon that is dead or silent asked once a recipient, and not twice."""
LOG = '[log]\nformat = "json"\n'


@pytest.fixture
def start(new_stack: NewStack) -> Callable[..., Stack]:
    return lambda **plan: new_stack(**({"domains": DOMAINS, "rest": LOG, "milter": ""} | plan))


def answer(stack: Stack, recipient: str, sender: str = "bert@sender.example") -> Reply:
    """What a stranger who names this recipient hears last."""
    return send(stack.port, sender, [recipient], letter()).last


def users(directory: Path) -> list[int]:
    """Processes that have a file open below this directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(opened.is_relative_to(directory) for opened in files(entry)):
                found.append(int(entry.name))
    return found


def files(process: Path) -> Iterator[Path]:
    for link in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield link.readlink()


def test_all_well_ours_passes_and_a_foreign_domain_is_refused_for_good(start: Callable[..., Stack]) -> None:
    stack = start()
    assert answer(stack, "anna@ours.example").code == 250
    assert answer(stack, "anna@foreign.example").code == 550


def test_with_every_process_of_ours_dead_postfix_knows_its_domains_and_their_next_hops(
    start: Callable[..., Stack],
) -> None:
    stack = start(settings=ONCE)
    os.killpg(stack.policyd.child.pid, signal.SIGKILL)
    stack.policyd.kill()
    assert wait_until(lambda: not users(stack.directory / "state"), 60)
    message_id = new_message_id()
    assert send(stack.port, "b@sender.example", ["anna@hop.example"], letter(message_id=message_id)).accepted
    assert stack.maildir.wait_for(message_id)
    codes = {
        recipient: answer(stack, recipient).code
        for recipient in (
            "anna@ours.example",
            "anna@branch.tree.example",
            "anna@xn--bcher-kva.example",
            "anna@sub.plain.example",
            "anna@foreign.example",
        )
    }
    assert codes == {
        "anna@ours.example": 250,
        "anna@branch.tree.example": 250,
        "anna@xn--bcher-kva.example": 250,
        "anna@sub.plain.example": 454,
        "anna@foreign.example": 454,
    }
    assert "next-hop-of-deep" in answer(stack, "anna@leaf.deep.example").text


def test_while_the_policy_daemon_is_silent_ours_passes_and_a_foreign_domain_may_try_again(
    start: Callable[..., Stack],
) -> None:
    stack = start(settings=ONCE, policyd='deadline = "250ms"')  # so that Postfix waits no longer
    stack.policyd.child.send(signal.SIGSTOP)
    try:
        assert answer(stack, "anna@ours.example").code == 250
        assert answer(stack, "anna@foreign.example").code == 454
    finally:
        stack.policyd.child.send(signal.SIGCONT)


def test_a_running_smtpd_sees_at_once_what_was_added_and_what_was_taken_out(
    start: Callable[..., Stack],
) -> None:
    stack = start()
    with Client(stack.port) as session:

        def hears(recipient: str) -> int:
            session.mail("bert@sender.example")
            code = session.rcpt(recipient).code
            session.command("RSET")
            return code

        assert hears("a@added.example") == 550
        stack.domains_file.write_text(DOMAINS.replace("plain.example\n", "added.example\n"))
        stack.policyd.wait_for(event="Postfix tables kept", put=1, removed=1)
        assert hears("b@added.example") == 250
        assert hears("b@plain.example") == 550
        stack.policyd.stop()
        # Now by Postfix's tables alone, in the same smtpd process.
        assert hears("c@added.example") == 250
        assert hears("c@plain.example") == 454


def test_a_domain_that_a_command_adds_is_in_postfix_s_tables_too(start: Callable[..., Stack]) -> None:
    stack = start()
    stack.run("domains", "add", "command.example", "--next-hop", "virtual:")
    stack.policyd.wait_for(event="Postfix tables kept", put=2)
    stack.policyd.stop()
    assert answer(stack, "anna@command.example").code == 250


def test_tables_that_only_root_and_the_daemons_may_read_do_for_postfix(start: Callable[..., Stack]) -> None:
    stack = start(chroot=True, settings=ONCE)
    stack.tables.chmod(0o700)
    for table in stack.tables.glob("*.lmdb"):
        table.chmod(0o600)
    stack.mx.reload({})
    stack.policyd.stop()
    assert answer(stack, "anna@ours.example").code == 250
    assert answer(stack, "anna@foreign.example").code == 454


def test_without_any_domain_relay_domains_alone_decides(start: Callable[..., Stack]) -> None:
    stack = start(
        domains="", own_tables=False, settings={"relay_domains": "own.example", "transport_maps": ""}
    )
    assert stack.policyd.wait_for(event="relay check is off")
    assert answer(stack, "anna@own.example").code == 250
    assert answer(stack, "anna@foreign.example").code == 454


def test_by_socketmap_ours_passes_goes_to_its_next_hop_and_a_foreign_domain_is_refused(
    start: Callable[..., Stack],
) -> None:
    stack = start(own_tables=False)
    for recipient in ("anna@ours.example", "Anna@XN--BCHER-KVA.example", "anna@branch.tree.example"):
        assert answer(stack, recipient).code == 250
    for recipient in ("anna@foreign.example", "anna@sub.plain.example"):
        assert answer(stack, recipient).code == 550
    assert "next-hop-of-deep" in answer(stack, "anna@leaf.deep.example").text
    assert not stack.mx.complaints()


def test_by_socketmap_all_mail_may_try_again_while_mxweir_is_dead_and_passes_when_it_is_back(
    start: Callable[..., Stack],
) -> None:
    stack = start(own_tables=False)
    stack.policyd.kill()
    assert answer(stack, "anna@ours.example").code == 451
    assert answer(stack, "anna@foreign.example").code == 451
    stack.policyd.start()
    assert wait_until(lambda: answer(stack, "anna@ours.example").code == 250, 60)


def test_by_socketmap_no_domain_known_is_a_temporary_failure(start: Callable[..., Stack]) -> None:
    stack = start(domains="", own_tables=False)
    assert answer(stack, "anna@ours.example").code == 451


def test_postmap_asks_the_map_server(start: Callable[..., Stack]) -> None:
    stack = start(own_tables=False)

    def query(table: str, key: str) -> tuple[int, str, str]:
        return stack.mx.query(f"socketmap:{stack.addresses.maps}:{table}", key)

    assert query("relay-domains", "ours.example") == (0, "ours.example\n", "")
    assert query("relay-domains", "leaf.tree.example") == (0, "tree.example\n", "")
    assert query("relay-domains", "foreign.example") == (1, "", "")
    assert query("transport", "anna@hop.example") == (0, "virtual:\n", "")
    assert query("transport", "anna@ours.example") == (1, "", "")
    status, _, told = query("nonsense", "ours.example")
    assert status == 1
    assert "no such table" in told
