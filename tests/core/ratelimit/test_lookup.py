from typing import Any

import pytest

from mxweir.config import LimitRule
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.lookup import Place, Use, places_of, use, used_of
from mxweir.ratelimit.rate import parse_rate
from mxweir.testing import question

FOLDER = Folder()
NOW = 1_800_000_000.0


def rule(name: str, *key: str, rate: str = "3/hour", **others) -> LimitRule:
    return LimitRule(name=name, key=key, rate=parse_rate(rate), **others)


RULES = [
    rule("sender", "sender"),
    rule("org", "sender_org", window=True),
    rule("domain", "sender_domain"),
    rule("mailbox", "recipient", overrides={"postmaster@b.example": None}),
    rule("address", "client_address"),
    rule("network", "client_network", mode="observe"),
    rule("fan-out", "sender_org", distinct="recipient"),
    rule("pair", "sender_org", "recipient"),
]
LIMITS = Limits(RULES, FOLDER)


def places(text: str) -> dict[str, str]:
    return {place.limit.name: place.key for place in places_of(LIMITS.limits, text, FOLDER).found}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Bob@A.example", {"sender": "bob@a.example", "mailbox": "bob@a.example"}),
        ("<>", {"sender": "<>", "org": "<>", "domain": "<>", "fan-out": "<>", "mailbox": "<>"}),
        (
            "postmaster",
            {"sender": "postmaster", "mailbox": "postmaster"}
            | dict.fromkeys(["org", "domain", "fan-out"], "postmaster"),
        ),
        ("BÜCHER.example.", dict.fromkeys(["org", "domain", "fan-out"], "xn--bcher-kva.example")),
        ("mail.a.example", {"domain": "mail.a.example"}),
        ("192.0.2.77", {"address": "192.0.2.77", "network": "192.0.2.0/24"}),
        ("192.0.2.0/24", {"network": "192.0.2.0/24"}),
        ("2001:DB8::7", {"address": "2001:db8::7", "network": "2001:db8::/64"}),
        ("a.example , Carol@b.example", {"pair": "a.example\ncarol@b.example"}),
    ],
)
def test_a_key_is_folded_as_each_limit_counts_it_and_passes_over_those_that_it_cannot_be_of(text, found):
    assert places(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mail.a.example", 'org: "mail.a.example" is no registrable domain; write "a.example"'),
        ("192.0.2.0/25", 'network: "192.0.2.0/25" is no client_network; write "192.0.2.0/24"'),
        ("anna+news@b.example", 'mailbox: "anna+news@b.example" is seen as "anna@b.example"; write that'),
        ("a.example", "pair: its key is sender_org, recipient; write all, with commas between"),
    ],
)
def test_why_a_limit_was_passed_over_is_told_where_an_operator_can_mend_it(text, why):
    assert why in places_of(LIMITS.limits, text, FOLDER).passed_over


@pytest.mark.parametrize(
    ("text", "charged"),
    [
        ("192.0.2.77", {"address", "network"}),
        ("bob@mail.a.example", {"sender"}),
        ("mail.a.example", {"domain"}),
        ("a.example", {"org", "fan-out"}),
        ("carol@b.example", {"mailbox"}),
        ("a.example,carol@b.example", {"pair"}),
    ],
)
def test_what_a_question_charges_is_found_by_what_an_operator_writes(text, charged):
    limits = Limits(RULES, FOLDER)
    limits.decide(question("192.0.2.77", "Bob@mail.a.example", "Carol+x@b.example"), NOW)
    found = places_of(limits.limits, text, FOLDER).found
    assert {limit.name for limit, key in found if limit.table.ask(key, "", 1.0, NOW)[0] == 1.0} == charged


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_a_counter_that_is_dropped_begins_anew_and_no_other_does(name):
    limits = Limits(RULES, FOLDER)
    for sender in ("bob@a.example", "bob@c.example"):
        for recipient in ("carol@b.example", "dave@d.example"):
            limits.decide(question(sender[-9:-8], sender, recipient), NOW)
    [limit] = [limit for limit in limits.limits if limit.name == name]
    before = dict(limit.table.rows(NOW))
    key = next(iter(before))
    limit.table.drop(key)
    assert dict(limit.table.rows(NOW)) == {other: row for other, row in before.items() if other != key}
    assert limit.table.ask(key, "new", 1.0, NOW)[0] == 0.0
    limit.table.drop("nobody")
    table: Any = limit.table
    counted = [len(held) for held in table.young.values() if not isinstance(held, float)]
    assert getattr(table, "_parts", 0) == sum(counted)


def test_how_much_a_row_uses_is_the_same_as_the_limit_says():
    limits = Limits(RULES, FOLDER)
    for recipient in ("carol@b.example", "dave@d.example"):
        limits.decide(question("192.0.2.1", "bob@a.example", recipient), NOW)
    for limit in limits.limits:
        for key, held in limit.table.rows(NOW):
            assert used_of((key, held)) == limit.table.ask(key, "", 0.0, NOW)[0], limit.name


def test_what_an_operator_is_shown_names_the_limit_the_key_and_its_own_rate():
    by_name = {limit.name: limit for limit in LIMITS.limits}
    shown = use(Place(by_name["pair"], "a.example\ncarol@b.example"), 3, 1200.0)
    assert shown == Use("pair", "a.example, carol@b.example", 3, 3, 1200.0, "enforce", "3/hour")
    assert use(Place(by_name["mailbox"], "postmaster@b.example"), 0, 0.0).most is None
    assert use(Place(by_name["network"], "192.0.2.0/24"), 0, 0.0).mode == "observe"
