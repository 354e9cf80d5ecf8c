"""DESIGN's rows with PostgreSQL, through a real Postfix with the printed lines."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from mxweir_ops.lab.client import Reply, send
from mxweir_ops.lab.host import PATIENCE, add, prepare
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.stack import Stack

PATIENT = 'deadline = "3s"'
ONCE = {"smtpd_recipient_restrictions": ""}
MORE = """\
INSERT INTO mxweir.domains (name, next_hop, include_subdomains, enabled) VALUES
    ('hop.example', 'virtual:', false, true),
    ('tree.example', '', true, true),
    ('off.example', '', true, false)
"""


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    with temporary_directory() as directory, PostgreSQL(directory) as server:
        yield server


@pytest.fixture
def dsn(server: PostgreSQL) -> str:
    dsn = server.dsn(server.new_database())
    prepare(dsn, "ours.example")
    with psycopg.connect(dsn) as connection:
        connection.execute(MORE)
    return dsn


def rest(dsn: str, domains: str = "") -> str:
    return f'{domains}\n[postgres]\ndsn = "{dsn}"\n[log]\nformat = "json"\n'


def answer(stack: Stack, recipient: str, sender: str = "bert@sender.example") -> Reply:
    return send(stack.port, sender, [recipient], letter()).last


def codes(stack: Stack, *recipients: str) -> list[int]:
    return [answer(stack, recipient).code for recipient in recipients]


def test_what_postgresql_knows_passes_through_all_that_dies_and_nothing_foreign_does(
    new_stack: Callable[..., Stack], server: PostgreSQL, dsn: str
) -> None:
    stack = new_stack(domains="", milter="", policyd=PATIENT, rest=rest(dsn), settings=ONCE)
    known = ["anna@ours.example", "anna@hop.example", "anna@leaf.tree.example"]
    assert codes(stack, *known) == [250, 250, 250]
    assert codes(stack, "anna@foreign.example", "anna@off.example", "anna@a.off.example") == [550, 550, 550]

    add(dsn, "since.example")
    heard: list[int] = []

    def taken() -> bool:
        heard.extend(codes(stack, f"anna{len(heard)}@since.example"))
        return heard[-1] == 250

    assert wait_until(taken, PATIENCE)
    assert set(heard[:-1]) <= {450, 454}

    server.kill()
    assert codes(stack, *known, "anna@since.example") == [250, 250, 250, 250]
    assert codes(stack, "anna@other.example", "anna@off.example") == [450, 450]
    stack.write_config(rest(dsn, 'unconfirmed = "reject"'))
    stack.policyd.reload()
    stack.policyd.wait_for(event="configuration reloaded")
    assert codes(stack, "anna@other2.example", "anna@ours.example") == [550, 250]

    stack.policyd.kill()
    assert codes(stack, *known, "anna@since.example") == [250, 250, 250, 250]
    assert codes(stack, "anna@other.example", "anna@off.example", "anna@a.off.example") == [454, 454, 454]


def test_by_socketmap_too_what_postgresql_knew_passes_while_it_is_dead_whoever_sends(
    new_stack: Callable[..., Stack], server: PostgreSQL, dsn: str
) -> None:
    stack = new_stack(domains="", milter="", policyd=PATIENT, rest=rest(dsn), settings=ONCE, own_tables=False)
    assert wait_until(lambda: answer(stack, "anna@ours.example").code == 250, PATIENCE)
    assert codes(stack, "anna@leaf.tree.example", "anna@foreign.example") == [250, 550]
    server.kill()
    stack.policyd.wait_for(event="PostgreSQL cannot be asked")
    message_id = new_message_id()
    # Postfix looks the sender's domain up, too; that it is told TEMP does no harm by itself.
    sent = send(stack.port, "b@stranger.example", ["a@ours.example"], letter(message_id=message_id))
    assert sent.accepted
    assert stack.maildir.wait_for(message_id)
    assert codes(stack, "anna@other.example", "anna@off.example") == [450, 450]


@pytest.mark.parametrize(("own_tables", "stranger"), [(True, 250), (False, 451)])
def test_a_restriction_that_resolves_senders_wants_tables_of_postfixs_own(
    new_stack: Callable[..., Stack], server: PostgreSQL, dsn: str, own_tables: bool, stranger: int
) -> None:
    """By socketmap it hears that a stranger's domain may be ours, and defers what is sent to anybody."""
    settings = ONCE | {"smtpd_sender_restrictions": "reject_unlisted_sender"}
    stack = new_stack(
        domains="", milter="", policyd=PATIENT, rest=rest(dsn), settings=settings, own_tables=own_tables
    )
    assert wait_until(lambda: answer(stack, "anna@ours.example").code == 250, PATIENCE)
    server.kill()
    stack.policyd.wait_for(event="PostgreSQL cannot be asked")
    assert answer(stack, "anna@ours.example", "b@stranger.example").code == stranger
    assert answer(stack, "anna@ours.example", "b@hop.example").code == 250
