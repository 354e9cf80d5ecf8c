"""Addresses that are rare but right."""

import pytest

from mxweir_ops.lab.client import Client, send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.stack import Stack

LONGEST_LOCAL_PART = "a" * 64
LONGEST_DOMAIN = ".".join(["b" * 63, "c" * 63, "d" * 53, "example"])
"""With the local part and the @, the 254 bytes that a path can carry (RFC 5321 §4.5.3.1.3)."""


def delivered(stack: Stack, sender: str, recipient: str, options: str = "") -> None:
    message_id = new_message_id()
    outcome = send(stack.port, sender, [recipient], letter(message_id=message_id), options=options)
    assert outcome.accepted, outcome
    (arrived,) = stack.maildir.wait_for(message_id)
    assert arrived.header("X-Spam-Status")
    assert stack.policyd.wait_for(event="decision", sender=sender)["verdict"] == "pass"


def test_a_sender_with_unicode_in_its_local_part_and_domain_is_served(stack: Stack) -> None:
    delivered(stack, "jürgen@müller.example", "anna@example.org", "SMTPUTF8")


def test_the_null_sender_is_served(stack: Stack) -> None:
    delivered(stack, "", "anna@example.org")


def test_a_recipient_with_a_quoted_local_part_is_served(stack: Stack, sender: str) -> None:
    delivered(stack, sender, '"anna of the hill"@example.org')


def test_an_address_of_the_greatest_length_is_served(stack: Stack) -> None:
    longest = f"{LONGEST_LOCAL_PART}@{LONGEST_DOMAIN}"
    assert len(longest) == 254
    delivered(stack, longest, f"{LONGEST_LOCAL_PART}@example.org")


def test_a_sender_whose_quoted_local_part_has_an_at_sign_is_served(stack: Stack) -> None:
    message_id = new_message_id()
    with Client(stack.port) as client:
        outcome = client.send('"a@b"@sender.example', ["anna@example.org"], letter(message_id=message_id))
    assert outcome.accepted
    assert stack.maildir.wait_for(message_id)


@pytest.mark.parametrize("address", ["2001:db8::9", "203.0.113.9"])
def test_clients_of_both_families_are_served(stack: Stack, sender: str, address: str) -> None:
    assert send(stack.port, sender, ["anna@example.org"], letter(), address=address).accepted
    assert stack.policyd.wait_for(event="decision", sender=sender)["client"] == address
