"""Rate limits, counted through Postfix. The shared stack lets a sender send to five recipients at once."""

from collections.abc import Callable

from mxweir_ops.lab.client import Client, send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.stack import Stack

BURST = 5


def test_the_message_after_exactly_the_burst_is_refused_for_good_with_the_reason(
    stack: Stack, sender: str
) -> None:
    codes = [send(stack.port, sender, ["anna@example.org"], letter()).last.code for _ in range(BURST)]
    refused = send(stack.port, sender, ["anna@example.org"], letter()).last
    assert codes == [250] * BURST
    assert (refused.code, refused.text[:5]) == (550, "5.7.1")
    assert "limit sender, 10/hour" in refused.text


def test_another_sender_is_unharmed_by_one_that_is_over_its_limit(stack: Stack, sender: str) -> None:
    for _ in range(BURST):
        send(stack.port, sender, ["anna@example.org"], letter())
    assert not send(stack.port, sender, ["anna@example.org"], letter()).accepted
    assert send(stack.port, f"other.{sender}", ["anna@example.org"], letter()).accepted


def test_each_recipient_of_a_message_counts_once_and_those_past_the_burst_are_left_out(
    stack: Stack, sender: str
) -> None:
    message_id = new_message_id()
    recipients = [f"user{number}@example.org" for number in range(BURST + 2)]
    outcome = send(stack.port, sender, recipients, letter(message_id=message_id))
    assert [reply.code for reply in outcome.recipients] == [250] * BURST + [550] * 2
    assert outcome.accepted
    delivered = stack.maildir.wait_for(message_id, BURST)
    assert sorted(delivery.recipient for delivery in delivered) == recipients[:BURST]


def test_a_refused_recipient_costs_nothing(stack: Stack, sender: str) -> None:
    with Client(stack.port) as client:
        client.mail(sender)
        codes = [client.rcpt(f"x{number}@elsewhere.example").code for number in range(BURST + 1)]
        assert codes == [550] * (BURST + 1)
        assert client.rcpt("anna@example.org").code == 250


def test_messages_of_one_session_count_each(stack: Stack, sender: str) -> None:
    with Client(stack.port) as client:
        codes = [client.send(sender, ["anna@example.org"], letter()).last.code for _ in range(BURST + 1)]
    assert codes == [250] * BURST + [550]


def test_a_recipient_that_is_asked_about_in_two_restriction_lists_is_counted_once(
    new_stack: Callable[..., Stack], sender: str
) -> None:
    stack = new_stack()
    # Two service strings are two connections: Postfix asks the same question twice.
    services = [
        f"check_policy_service {{ {stack.addresses.policy}, policy_context=limits, timeout={seconds}s }}"
        for seconds in (20, 30)
    ]
    stack.mx.reload({"smtpd_recipient_restrictions": ", ".join(services)})
    replies = [send(stack.port, sender, ["anna@example.org"], letter()).last for _ in range(BURST + 1)]
    assert [reply.code for reply in replies] == [250] * BURST + [550], replies
    asked = stack.policyd.records(event="decision", sender=sender, recipient="anna@example.org")
    assert len(asked) >= 3 * BURST


WHOLE_MESSAGES = """\
[[limit]]
name = "messages"
key = "sender"
rate = "2/hour"
unit = "message"

[[limit]]
name = "bytes"
key = "sender_domain"
rate = "50000/day"
unit = "byte"
"""


def test_messages_and_bytes_are_counted_at_the_end_of_data_whatever_the_number_of_recipients(
    new_stack: Callable[..., Stack],
) -> None:
    stack = new_stack(rest=WHOLE_MESSAGES)
    to_many = [f"user{number}@example.org" for number in range(4)]
    outcomes = [send(stack.port, "a@first.example", to_many, letter()) for _ in range(3)]
    assert [outcome.last.code for outcome in outcomes] == [250, 250, 550]
    assert "limit messages" in outcomes[-1].last.text
    large = letter("all work and no play\n" * 1400)
    sizes = [send(stack.port, f"{name}@second.example", to_many, large) for name in "ab"]
    assert [outcome.last.code for outcome in sizes] == [250, 550]
    assert "limit bytes" in sizes[-1].last.text


def test_a_blocked_sender_is_refused_with_the_reason_from_the_list(stack: Stack) -> None:
    refused = send(stack.port, "offers@mail7.bulk.example", ["anna@example.org"], letter()).last
    assert refused.code == 554
    assert "never confirmed its addresses" in refused.text
