"""Relay domains: what Postfix accepts for whom."""

from collections.abc import Callable

import pytest

from mxweir_ops.lab.client import send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.stack import Stack


def test_mail_for_a_foreign_domain_is_refused_for_good_and_says_why(stack: Stack, sender: str) -> None:
    outcome = send(stack.port, sender, ["dave@elsewhere.example"], letter())
    assert outcome.recipients[0].code == 550
    assert "5.7.1" in outcome.recipients[0].text
    assert "elsewhere.example: relay access denied" in outcome.recipients[0].text


@pytest.mark.parametrize(
    "recipient",
    [
        "anna@example.org",
        "Anna@ExAmPlE.ORG",
        "anna@xn--bcher-kva.example",
        "anna@XN--BCHER-KVA.Example",
        "anna@tree.example",
        "anna@branch.tree.example",
        "anna@leaf.branch.tree.example",
    ],
)
def test_mail_for_a_domain_of_ours_is_delivered_however_it_is_written(
    stack: Stack, sender: str, recipient: str
) -> None:
    message_id = new_message_id()
    assert send(stack.port, sender, [recipient], letter(message_id=message_id)).accepted
    assert stack.maildir.wait_for(message_id)


@pytest.mark.parametrize("recipient", ["anna@bücher.example", "anna@BÜCHER.example"])
def test_mail_for_an_internationalised_domain_is_delivered_by_its_unicode_name_too(
    stack: Stack, sender: str, recipient: str
) -> None:
    message_id = new_message_id()
    outcome = send(stack.port, sender, [recipient], letter(message_id=message_id), options="SMTPUTF8")
    assert outcome.accepted, outcome
    assert stack.maildir.wait_for(message_id)


@pytest.mark.parametrize(
    "recipient",
    [
        "anna@sub.plain.example",
        "anna@tree.example.elsewhere.example",
        "anna@notexample.org",
        "anna%elsewhere.example@elsewhere.example",
        "@example.org:anna@elsewhere.example",
    ],
)
def test_a_name_that_only_resembles_ours_is_refused(stack: Stack, sender: str, recipient: str) -> None:
    outcome = send(stack.port, sender, [recipient], letter())
    assert not outcome.accepted
    assert outcome.recipients[0].code == 550


@pytest.mark.parametrize(
    "recipient", ["anna%elsewhere.example@example.org", "elsewhere.example!anna@example.org"]
)
def test_a_source_route_through_a_domain_of_ours_is_no_relay(
    stack: Stack, sender: str, recipient: str
) -> None:
    assert not send(stack.port, sender, [recipient], letter()).accepted


def test_a_client_of_mynetworks_may_send_anywhere(stack: Stack, sender: str) -> None:
    assert send(stack.port, sender, ["dave@elsewhere.example"], letter(), address=None).accepted


def test_a_domain_added_to_the_file_is_taken_without_a_restart_and_never_refused_for_good_meanwhile(
    new_stack: Callable[..., Stack], sender: str
) -> None:
    stack = new_stack(rest='[log]\nformat = "json"\n')
    assert send(stack.port, sender, ["anna@added.example"], letter()).last.code == 550
    stack.domains_file.write_text(stack.plan.domains + "added.example\n")
    stack.policyd.wait_for(event="domains loaded", added=1)
    codes: list[int] = []

    def taken() -> bool:
        # Another recipient each time: an smtpd process remembers what it was told of one.
        outcome = send(stack.port, sender, [f"anna{len(codes)}@added.example"], letter())
        codes.append(outcome.last.code)
        return outcome.accepted

    assert wait_until(taken, 30)
    assert set(codes[:-1]) <= {454}
