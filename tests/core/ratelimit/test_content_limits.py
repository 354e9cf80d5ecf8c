"""Limits that are asked about a whole message, by several keys at once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.facts import MANY, ContentFacts, Folder
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.reply import reply_to

NOW = 1_800_000_000.0
FOLDER = Folder()


def limits(*tables: str) -> Limits:
    return Limits(loads("\n".join(f"[[limit]]\n{table}" for table in tables)).limit, FOLDER)


def message(
    authors: Sequence[str] = ("anna@shop.example",),
    repliers: Sequence[str] = ("claims@prize.example",),
    recipients: Sequence[str] = ("bob@b.example",),
    size: int = 1000,
    instance: str = "",
    count: int = 0,
) -> ContentFacts:
    return ContentFacts(
        client=FOLDER.client[b"192.0.2.1"],
        sender=FOLDER.sender[b"x@a.b.c.d.sender.example"],
        helo=b"helo.example",
        sasl_username=b"",
        instance=instance.encode(),
        size_in_bytes=size,
        recipients=tuple(FOLDER.recipient[each.encode()] for each in recipients),
        recipient_count=count or len(recipients),
        authors=tuple(FOLDER.sender[each.encode()] for each in authors),
        repliers=tuple(FOLDER.sender[each.encode()] for each in repliers),
    )


def passes(outcome: Outcome) -> bool:
    return outcome.refusal is None


def in_use(counted: Limits) -> dict[str, float]:
    """What each key has in use, of all limits that are rates."""
    return {key: round(used, 3) for _, rows in counted.rows(NOW) for key, used in rows}


REPLY_TO = 'name = "reply-to"\nkey = "reply_to"\nunit = "message"\nrate = "3/day"\n'


def test_one_reply_to_of_ever_new_senders_is_refused_after_exactly_the_limit():
    counted = limits(REPLY_TO)
    said = [counted.decide(message(authors=[f"u{i}@{i}.a.b.c.d.x.example"]), NOW) for i in range(5)]
    assert [passes(each) for each in said] == [True] * 3 + [False] * 2
    assert passes(counted.decide(message(repliers=["other@prize.example"]), NOW))
    refusal = said[-1].refusal
    assert refusal is not None
    assert (refusal.key, refusal.figure) == ("claims@prize.example", "3/3")
    assert str(reply_to(refusal)).startswith(
        "550 5.7.1 You are sending too much mail (limit reply-to, 3/day)"
    )


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("from", "anna@shop.example"),
        ("from_org", "shop.example"),
        ("reply_to", "claims@prize.example"),
        ("reply_to_org", "prize.example"),
    ],
)
def test_addresses_of_the_content_fold_as_envelope_senders_do(key, parts):
    counted = limits(f'name = "n"\nkey = "{key}"\nrate = "9/day"')
    counted.decide(message(["anna+x@SHOP.example"], ["Claims@Prize.Example"]), NOW)
    assert in_use(counted) == {parts: 1.0}


@pytest.mark.parametrize(
    ("unit", "key", "used"),
    [
        ("recipient", '"from_org"', {"shop.example": 3}),
        ("message", '"from_org"', {"shop.example": 1}),
        ("byte", '"from_org"', {"shop.example": 500}),
        (
            "recipient",
            '["from_org", "recipient_domain"]',
            {"shop.example\nb.example": 2, "shop.example\nc.example": 1},
        ),
        (
            "message",
            '["from_org", "recipient_domain"]',
            {"shop.example\nb.example": 1, "shop.example\nc.example": 1},
        ),
        (
            "byte",
            '["from_org", "recipient"]',
            {f"shop.example\n{n}.example": 500 for n in ("a@b", "b@b", "c@c")},
        ),
        ("recipient", '["from", "client_network"]', {f"{n}@shop.example\n192.0.2.0/24": 3 for n in "xy"}),
    ],
)
def test_a_message_charges_each_different_key_for_all_that_have_it(unit, key, used):
    counted = limits(f'name = "n"\nkey = {key}\nunit = "{unit}"\nrate = "900/day"')
    facts = message(
        ["x@shop.example", "y@shop.example"], [], ["a@b.example", "b@b.example", "c@c.example"], 500
    )
    assert passes(counted.decide(facts, NOW))
    assert in_use(counted) == used


def test_a_message_without_the_field_passes_and_charges_nothing():
    counted = limits(REPLY_TO, 'name = "d"\nkey = "sender_org"\ndistinct = "reply_to"\nrate = "1/day"')
    assert all(passes(counted.decide(message(repliers=[]), NOW)) for _ in range(9))
    assert in_use(counted) == {}


def test_a_refused_message_charges_no_limit_for_none_of_its_recipients():
    counted = limits(
        'name = "org"\nkey = "from_org"\nrate = "100/day"',
        'name = "pair"\nkey = ["from_org", "recipient"]\nrate = "1/day"',
        REPLY_TO,
    )
    assert passes(counted.decide(message(recipients=["full@b.example"]), NOW))
    before = in_use(counted)
    several = message(recipients=["one@b.example", "full@b.example", "two@b.example"])
    assert not passes(counted.decide(several, NOW))
    assert in_use(counted) == before


def test_recipients_beyond_those_that_are_kept_are_counted_too():
    counted = limits('name = "n"\nkey = "from_org"\nrate = "2000/day"')
    assert passes(counted.decide(message(count=1500), NOW))
    assert not passes(counted.decide(message(count=501), NOW))


def test_the_same_message_told_twice_is_charged_once():
    counted = limits(REPLY_TO)
    assert all(passes(counted.decide(message(instance="mx1 A1"), NOW)) for _ in range(9))
    assert in_use(counted) == {"claims@prize.example": 1.0}


def test_different_values_of_several_addresses_are_told_apart_together():
    counted = limits('name = "d"\nkey = "sender_org"\ndistinct = "reply_to"\nrate = "2/day"')
    lists = [["a@x.example", "b@x.example"], ["b@x.example", "a@x.example"], ["a@x.example"], ["b@x.example"]]
    assert [passes(counted.decide(message(repliers=each), NOW)) for each in lists] == [
        True,
        True,
        True,
        False,
    ]


def test_lists_that_are_too_long_to_count_each_are_told_apart_as_values_and_are_one_key():
    counted = limits('name = "d"\nkey = "sender_org"\ndistinct = "from"\nrate = "2/day"')
    too_many = [message()._replace(authors=(replace(MANY, given=mark),)) for mark in ("a", "b", "a", "c")]
    assert [passes(counted.decide(each, NOW)) for each in too_many] == [True, True, True, False]
    counted = limits('name = "k"\nkey = "from"\ndistinct = "client_network"\nrate = "1/day"')
    assert all(passes(counted.decide(each, NOW)) for each in too_many)
    ((_, rows),) = counted.rows(NOW)
    assert [key for key, _ in rows] == ["<many>"]


def test_authors_in_front_hide_none_from_a_limit_however_many_recipients_there_are():
    counted = limits('name = "n"\nkey = ["from", "recipient"]\nrate = "1/day"')
    recipients = [f"r{number}@b.example" for number in range(143)]
    for number in range(2):
        authors = [*(f"x{number}{one}@x.example" for one in range(7)), "const@evil.example"]
        facts = message(authors, [], recipients)
        assert passes(counted.decide(facts, NOW)) is (number == 0)


def test_a_message_takes_part_in_a_limit_by_a_thousand_keys_at_most():
    counted = limits('name = "n"\nkey = ["from", "reply_to", "recipient"]\nunit = "message"\nrate = "9/day"')
    eight = [f"u{number}@x.example" for number in range(8)]
    facts = message(eight, eight, [f"r{number}@b.example" for number in range(1000)])
    assert passes(counted.decide(facts, NOW))
    assert len(in_use(counted)) == 1000


def test_limits_by_envelope_are_not_asked_about_messages_nor_those_by_content_about_recipients():
    counted = limits(REPLY_TO)
    assert not counted.asked_at(b"RCPT", b"")
    assert not counted.asked_at(b"END-OF-MESSAGE", b"message")
    assert counted.asked_at(b"END-OF-MESSAGE", b"")


ADDRESS = st.sampled_from([f"{user}@{host}.example" for user in "ab" for host in ("x", "y", "a.x")])


@given(
    st.lists(
        st.tuples(
            st.lists(ADDRESS, max_size=3),
            st.lists(ADDRESS, max_size=3),
            st.lists(ADDRESS, min_size=1, max_size=4),
        ),
        max_size=12,
    )
)
def test_no_key_is_ever_charged_more_than_its_limit_and_a_refusal_changes_nothing(messages):
    counted = limits(
        'name = "one"\nkey = ["from_org", "recipient"]\nrate = "3/day"',
        'name = "two"\nkey = "reply_to"\nrate = "4/day"',
    )
    for authors, repliers, recipients in messages:
        facts = message(list(dict.fromkeys(authors)), list(dict.fromkeys(repliers)), recipients)
        before = in_use(counted)
        if not passes(counted.decide(facts, NOW)):
            assert in_use(counted) == before
    assert all(used <= (3 if "\n" in key else 4) for key, used in in_use(counted).items())
