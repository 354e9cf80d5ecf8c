import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.facts import KEYS, Facts, Folder
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.testing import question

NOW = 1_800_000_000.0
FOLDER = Folder()


def limits(text: str, max_keys: int = 100_000) -> Limits:
    return Limits(loads(text).limit, FOLDER, max_keys)


def limit(name: str, key: str, rate: str, more: str = "") -> str:
    return f'[[limit]]\nname = "{name}"\nkey = {key}\nrate = "{rate}"\n{more}\n'


def refused(outcome: Outcome) -> str | None:
    return outcome.refusal.limit.name if outcome.refusal else None


def figures(counted: Limits, facts: Facts, now: float = NOW) -> dict[str, str]:
    """How much of each limit is used, as `mxweir explain` shows it."""
    return {step.rule: step.figure for step in counted.preview(facts, now)[1]}


def passed(counted: Limits, facts: Facts, now: float = NOW, most: int = 1000) -> int:
    """How many times in a row a question passes."""
    count = 0
    while count < most and counted.decide(facts, now).refusal is None:
        count += 1
    return count


SENDER_THEN_MAILBOX = limit("sender", '"sender"', "3/minute") + limit("mailbox", '"recipient"', "5/minute")


def test_the_first_limit_without_room_refuses():
    counted = limits(SENDER_THEN_MAILBOX)
    assert [refused(counted.decide(question(), NOW)) for _ in range(4)] == [None, None, None, "sender"]
    others = [refused(counted.decide(question(sender=f"s{i}@x.example"), NOW)) for i in range(3)]
    assert others == [None, None, "mailbox"]


def test_a_flood_that_its_senders_limit_refuses_does_not_use_up_the_mailbox():
    counted = limits(SENDER_THEN_MAILBOX)
    for _ in range(100):
        counted.decide(question(), NOW)
    assert figures(counted, question()) == {"sender": "3/3", "mailbox": "3/5"}


def test_what_a_later_limit_refuses_is_not_charged_to_those_before_it():
    counted = limits(
        limit("mailbox", '"recipient"', "2/minute") + SENDER_THEN_MAILBOX.replace('"mailbox"', '"m2"')
    )
    for i in range(2):
        counted.decide(question(sender=f"s{i}@x.example"), NOW)
    for _ in range(50):
        assert refused(counted.decide(question(), NOW)) == "mailbox"
    assert figures(counted, question()) == {"mailbox": "2/2", "sender": "0/3", "m2": "2/5"}


def test_a_refusal_tells_limit_key_figure_and_when_there_is_room_again():
    counted = limits(limit("pair", '["sender", "recipient"]', "2/minute"))
    for _ in range(2):
        counted.decide(question(), NOW)
    refusal = counted.decide(question(), NOW).refusal
    assert refusal is not None
    assert (refusal.key, refusal.figure, refusal.wait) == ("alice@a.example, bob@b.example", "2/2", 30.0)
    assert counted.decide(question(), NOW + 30.0).refusal is None


def test_the_rates_count_is_the_burst_unless_one_is_given():
    assert passed(limits(limit("a", '"sender"', "7/minute")), question()) == 7
    assert passed(limits(limit("a", '"sender"', "7/minute", "burst = 20")), question()) == 20
    assert passed(limits(limit("a", '"sender"', "7/minute", "burst = 1")), question()) == 1


def test_a_quota_is_spent_once_in_its_period_however_it_is_spread():
    counted = limits(limit("day", '"sender"', "24/day", "window = true"))
    assert sum(counted.decide(question(), NOW + hour * 900).refusal is None for hour in range(95)) == 24


def test_a_limit_of_different_values_counts_values_and_not_events():
    counted = limits(limit("fan", '"sender_org"', "2/hour", 'distinct = "sender_domain"'))
    asked = ["a.x.example", "b.x.example", "a.x.example", "c.x.example", "b.x.example", "y.example"]
    outcomes = [refused(counted.decide(question(sender=f"s@{domain}"), NOW)) for domain in asked]
    assert outcomes == [None, None, None, "fan", None, None]


def test_observing_refuses_nothing_tells_what_it_would_and_lets_the_others_count():
    counted = limits(
        limit("trial", '"sender"', "1/minute", 'mode = "observe"') + limit("real", '"sender"', "3/minute")
    )
    outcomes = [counted.decide(question(), NOW) for _ in range(4)]
    assert [refused(outcome) for outcome in outcomes] == [None, None, None, "real"]
    assert [[o.figure for o in outcome.observed] for outcome in outcomes] == [[], ["1/1"], ["1/1"], ["1/1"]]
    assert outcomes[1].observed[0][:2] == ("trial", "alice@a.example")
    assert figures(counted, question()) == {"trial": "1/1", "real": "3/3"}


def test_a_key_with_an_override_has_that_rate_and_the_others_theirs():
    counted = limits(
        limit(
            "a",
            '"sender"',
            "3/minute",
            'overrides = { "Alice@A.example" = "5/hour", "x@y.example" = "1/hour" }',
        )
    )
    assert passed(counted, question()) == 5
    assert passed(counted, question(sender="x@y.example")) == 1
    assert passed(counted, question(sender="other@a.example")) == 3


def test_an_unlimited_key_is_never_refused_and_can_be_explained():
    for kind in ("", "window = true\n", 'distinct = "recipient"\n'):
        counted = limits(limit("a", '"sender"', "3/minute", f'{kind}overrides = {{ "<>" = "unlimited" }}'))
        bounces = [question(sender="", recipient=f"r{i}@b.example") for i in range(50)]
        assert all(counted.decide(bounce, NOW).refusal is None for bounce in bounces)
        assert figures(counted, bounces[0])["a"].endswith("/unlimited")


def test_an_override_of_several_keys_is_written_with_commas():
    counted = limits(
        limit(
            "a",
            '["sender_org", "recipient"]',
            "1/hour",
            'overrides = { "A.example, bob@b.example" = "4/hour" }',
        )
    )
    assert passed(counted, question(sender="x@mail.a.example")) == 4
    assert passed(counted, question(sender="x@mail.a.example", recipient="c@b.example")) == 1


def test_an_override_of_a_window_or_of_different_values_is_its_quota():
    own = 'overrides = { "alice@a.example" = "6/day" }'
    assert passed(limits(limit("a", '"sender"', "3/hour", f"window = true\n{own}")), question()) == 6
    counted = limits(limit("a", '"sender"', "3/hour", f'distinct = "recipient"\n{own}'))
    asked = [question(recipient=f"r{i}@b.example") for i in range(9)]
    assert sum(counted.decide(facts, NOW).refusal is None for facts in asked) == 6


FIRST: dict[str, Any] = {
    "client": "192.0.2.1",
    "recipient": "bob@b.example",
    "instance": "7b.63.0",
    "state": "RCPT",
}


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, 1),
        ({"queue_id": "4XyZ"}, 1),
        ({"size": "12345"}, 1),
        ({"context": "limits"}, 1),
        ({"instance": "7b.63.1"}, 2),
        ({"recipient": "bob+tag@b.example"}, 2),
        ({"recipient": "carol@b.example"}, 2),
        ({"client": "192.0.2.2"}, 1),
        ({"instance": ""}, 2),
    ],
)
def test_the_very_same_question_is_charged_once_and_any_other_again(change, counts):
    counted = limits(limit("a", '"client_network"', "10/minute"))
    counted.decide(question(**FIRST), NOW)
    counted.decide(question(**FIRST | change), NOW + 1)
    assert figures(counted, question(client="192.0.2.1"), NOW) == {"a": f"{counts}/10"}


def test_without_an_instance_no_question_is_a_repeated_one():
    counted = limits(limit("a", '"sender"', "10/minute"))
    for _ in range(3):
        counted.decide(question(instance=""), NOW)
    assert figures(counted, question()) == {"a": "3/10"}


def test_a_repeated_question_passes_even_when_the_limit_is_used_up_since():
    counted = limits(limit("a", '"sender"', "1/minute"))
    assert counted.decide(question(instance="1"), NOW).refusal is None
    assert counted.decide(question(instance="2"), NOW).refusal is not None
    assert counted.decide(question(instance="1"), NOW).refusal is None


def test_a_question_that_was_refused_is_asked_anew():
    counted = limits(limit("a", '"sender"', "1/minute"))
    counted.decide(question(instance="1"), NOW)
    assert counted.decide(question(instance="2"), NOW).refusal is not None
    assert counted.decide(question(instance="2"), NOW + 60).refusal is None
    assert counted.decide(question(instance="3"), NOW + 60).refusal is not None


def test_the_same_instance_at_rcpt_and_at_end_of_message_is_two_questions():
    counted = limits(
        limit("r", '"sender"', "9/minute") + limit("m", '"sender"', "9/minute", 'unit = "message"')
    )
    for state in ("RCPT", "END-OF-MESSAGE", "RCPT", "END-OF-MESSAGE"):
        counted.decide(question(state=state, instance="1"), NOW)
    assert figures(counted, question()) == {"r": "1/9"}
    assert figures(counted, question(state="END-OF-MESSAGE")) == {"m": "1/9"}


EACH_UNIT = "".join(
    limit(unit, '"sender"', "1000/minute", f'unit = "{unit}"') for unit in ("recipient", "message", "byte")
)


@pytest.mark.parametrize("context", ["", "limits", "message", "relay"])
@pytest.mark.parametrize(
    "state", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", ""]
)
def test_each_unit_is_counted_when_postfix_knows_it_and_in_its_context(state, context):
    counted = limits(EACH_UNIT)
    counted.decide(question(state=state, context=context, size="250"), NOW)
    # Looked up without a context, where each has its own moment.
    at_rcpt = figures(counted, question())
    at_end = figures(counted, question(state="END-OF-MESSAGE"))
    rcpt = state == "RCPT" and context in ("", "limits")
    end = state == "END-OF-MESSAGE" and context in ("", "message")
    assert at_rcpt | at_end == {
        "recipient": "1/1000" if rcpt else "0/1000",
        "message": "1/1000" if end else "0/1000",
        "byte": "250/1000" if end else "0/1000",
    }


def test_messages_to_several_recipients_are_no_mailboxs_messages():
    counted = limits(limit("mailbox", '"recipient"', "1/hour", 'unit = "message"'))
    # Postfix names no recipient then (SMTPD_POLICY_README).
    several = [question(state="END-OF-MESSAGE", recipient="", instance=str(number)) for number in range(9)]
    assert [refused(counted.decide(facts, NOW)) for facts in several] == [None] * 9


def test_bytes_are_those_of_the_message_and_one_that_is_too_large_is_refused():
    counted = limits(limit("a", '"sender"', "1KB/hour", 'unit = "byte"'))
    sizes = ["400", "601", "600", "1", ""]
    outcomes = [refused(counted.decide(question(state="END-OF-MESSAGE", size=size), NOW)) for size in sizes]
    assert outcomes == [None, "a", None, "a", None]


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ('"sasl_username"', question()),
        ('"helo"', question()),
        ('"sender_domain"', question(sender="cron")),
        (
            '"recipient"',
            question(recipient="")._replace(recipient=replace(FOLDER.recipient[b""], mailbox="")),
        ),
        ('["sender", "sasl_username"]', question()),
        ('["sasl_username", "sender"]', question()),
        ('["helo", "sasl_username", "recipient"]', question(helo="x.example")),
    ],
)
def test_a_limit_whose_key_the_question_lacks_is_passed_over_and_the_others_count(key, facts):
    counted = limits(limit("lacks", key, "1/day") + limit("has", '"client_network"', "3/minute"))
    assert [refused(counted.decide(facts, NOW)) for _ in range(4)] == [None, None, None, "has"]
    steps = counted.preview(facts, NOW)[1]
    assert (steps[0].key, steps[0].note) == ("", "the question lacks this limit's key")


def test_parts_of_a_key_cannot_be_mistaken_for_each_other():
    counted = limits(limit("a", '["helo", "sasl_username"]', "1/day"))
    assert counted.decide(question(helo="a, b", sasl_username="c"), NOW).refusal is None
    assert counted.decide(question(helo="a", sasl_username="b, c"), NOW).refusal is None


def test_without_limits_everything_passes():
    assert limits("").decide(question(), NOW) == Outcome(None, ())


def test_one_who_goes_on_sending_while_refused_is_not_forgotten_in_a_flood_of_others():
    counted = limits(limit("a", '"sender"', "5/day"), max_keys=1000)
    assert passed(counted, question()) == 5
    for i in range(20):
        for j in range(200):
            counted.decide(question(sender=f"s{i}.{j}@x.example"), NOW)
        assert counted.decide(question(), NOW).refusal is not None


def test_a_sender_whose_recipients_limit_refuses_is_not_forgotten_either():
    counted = limits(limit("a", '"sender"', "5/day") + limit("b", '"recipient"', "3/day"), max_keys=2000)
    assert passed(counted, question()) == 3
    for i in range(20):
        for j in range(200):
            counted.decide(question(sender=f"s{i}.{j}@x.example", recipient=f"r{i}.{j}@x.example"), NOW)
        assert refused(counted.decide(question(), NOW)) == "b"
    assert figures(counted, question()) == {"a": "3/5", "b": "3/3"}


def test_one_who_is_only_observed_is_not_forgotten_in_a_flood_either():
    counted = limits(limit("a", '"sender"', "5/day", 'mode = "observe"'), max_keys=1000)
    for _ in range(5):
        counted.decide(question(), NOW)
    for i in range(20):
        for j in range(200):
            counted.decide(question(sender=f"s{i}.{j}@x.example"), NOW)
        assert counted.decide(question(), NOW).observed


def test_what_is_remembered_is_bounded_over_all_limits():
    text = "".join(
        limit(f"l{i}", key, "5/day") for i, key in enumerate(['"sender"', '"recipient"', '"helo"'])
    )
    counted = limits(text, max_keys=3000)
    for i in range(5000):
        counted.decide(question(sender=f"s{i}@x.example", recipient=f"r{i}@y.example", helo=f"h{i}"), NOW)
    assert sum(size for _, size in counted.sizes()) <= 3000
    assert [name for name, _ in counted.sizes()] == ["l0", "l1", "l2"]


def test_ticking_frees_what_is_over():
    counted = limits(limit("a", '"sender"', "5/minute"))
    counted.decide(question(), NOW)
    for second in range(0, 300, 5):
        counted.tick(NOW + second)
    assert counted.sizes() == [("a", 0)]


# Questions of all kinds, against limits of all kinds

RULES = (
    limit("client", '"client_network"', "6/minute", "burst = 8")
    + limit("org", '"sender_org"', "9/minute", 'overrides = { "b.example" = "3/minute", "<>" = "unlimited" }')
    + limit(
        "user", '["sender", "sasl_username"]', "4/10 minutes", 'overrides = { "a@a.example, u" = "2/minute" }'
    )
    + limit("mailbox", '"recipient"', "5/minute", 'refuse = "defer"')
    + limit("login", '["helo", "sasl_username"]', "3/minute")
    + limit("helo", '"helo"', "7/minute", 'mode = "observe"')
)
MIXED = RULES + limit("day", '"sender"', "12/day", "window = true")

QUESTIONS = st.builds(
    question,
    st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.1"]),
    st.sampled_from(["a@a.example", "b@x.b.example", "", "cron"]),
    st.sampled_from(["r@x.example", "s@x.example"]),
    helo=st.sampled_from(["", "h"]),
    sasl_username=st.sampled_from(["", "u", "v"]),
    instance=st.sampled_from(["", "1", "2"]),
    context=st.sampled_from(["", "limits"]),
)
ASKED = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.3, 7.0, 65.0]), QUESTIONS), max_size=80)


def said(outcome: Outcome) -> tuple[object, ...]:
    refusal = outcome.refusal
    return (refusal and (refusal.limit.name, *refusal[1:]), outcome.observed)


def remembered(counted: Limits, now: float) -> list[tuple[str, list[object]]]:
    return [(name, sorted(rows, key=repr)) for name, rows in counted.rows(now)]


@pytest.mark.parametrize("sign", ["a", "\u4e2d", "\U0001f600"])
@pytest.mark.parametrize(
    "key", [list(KEYS), ["sender", "recipient", "helo"], ["sender", "recipient"], ["helo"]]
)
def test_no_key_of_however_many_parts_takes_more_than_1300_bytes(key, sign):
    counted = limits(limit("k", str(key).replace("'", '"'), "3/day"))
    for length in (1, 40, 63, 64, 100, 127, 190, 240, 250, 300):
        word = "a" * (length - 1) + sign
        facts = question(
            sender=f"{'s' * length}@x.example",
            recipient=f"{word}@y.example",
            helo=word,
            sasl_username=word,
        )
        assert passed(counted, facts) == 3
    keys = [key for _, rows in counted.rows(NOW) for key, _ in rows]
    assert len(keys) == 10
    assert max(map(sys.getsizeof, keys)) < 1300 + sys.getsizeof("\U0001f600")


def test_an_override_of_many_long_parts_holds_for_the_key_that_it_names():
    parts = ["s" * 200 + "@x.example", "r" * 200 + "@y.example", "h" * 200]
    override = f'overrides = {{ "{", ".join(parts)}" = "2/day" }}'
    counted = limits(limit("k", '["sender", "recipient", "helo"]', "9/day", override))
    facts = question(sender=parts[0], recipient=parts[1], helo=parts[2])
    assert [refused(counted.decide(facts, NOW)) for _ in range(3)] == [None, None, "k"]


@pytest.mark.parametrize("text", [RULES, MIXED])
@given(ASKED)
def test_a_preview_tells_the_decision_and_spends_nothing(text, asked):
    counted, unseen = limits(text), limits(text)
    now = NOW
    for gap, facts in asked:
        now += gap
        told, _ = counted.preview(facts, now)
        counted.preview(facts, now)
        decided = counted.decide(facts, now)
        assert said(told) == said(decided) == said(unseen.decide(facts, now))
    assert remembered(counted, now) == remembered(unseen, now)


def test_a_preview_shows_every_limit_and_which_were_not_reached():
    counted = limits(
        limit("trial", '"sender"', "1/minute", 'mode = "observe"')
        + limit("sender", '"sender"', "2/minute")
        + limit("mailbox", '"recipient"', "9/minute")
    )
    for _ in range(2):
        counted.decide(question(), NOW)
    outcome, steps = counted.preview(question(), NOW)
    assert refused(outcome) == "sender"
    assert [(s.rule, s.outcome, s.figure) for s in steps] == [
        ("trial", "would refuse", "1/1"),
        ("sender", "refuse", "2/2"),
        ("mailbox", "not reached", "2/9"),
    ]
    assert steps[1].note == "free in 30.0 s"


def test_a_preview_of_a_question_that_was_counted_says_so():
    counted = limits(limit("a", '"sender"', "1/minute"))
    counted.decide(question(instance="1"), NOW)
    outcome, steps = counted.preview(question(instance="1"), NOW)
    assert refused(outcome) is None
    assert [step.note for step in steps] == ["this very question was counted before"]


# A new configuration

BEFORE = limit("a", '"sender"', "4/hour") + limit("q", '"sender"', "4/day", "window = true")


def reloaded(before: str, after: str, asked: int = 3) -> Limits:
    former = limits(before)
    for _ in range(asked):
        former.decide(question(), NOW)
    counted = limits(after)
    counted.adopt(former, NOW)
    return counted


@pytest.mark.parametrize(
    ("after", "figure"),
    [
        (BEFORE, {"a": "3/4", "q": "3/4"}),
        (limit("new", '"recipient"', "9/hour") + BEFORE, {"new": "0/9", "a": "3/4", "q": "3/4"}),
        (limit("a", '"sender"', "9/hour"), {"a": "3/9"}),
        (limit("a", '"sender"', "2/hour"), {"a": "2/2"}),
        (limit("a", '"sender"', "4/hour", 'mode = "observe"'), {"a": "3/4"}),
        (limit("a", '"recipient"', "4/hour"), {"a": "0/4"}),
        (limit("a", '"sender"', "4/hour", "window = true"), {"a": "0/4"}),
        (limit("a", '"sender"', "4/hour", 'overrides = { "alice@a.example" = "8/hour" }'), {"a": "3/8"}),
        (limit("b", '"sender"', "4/hour"), {"b": "0/4"}),
        (limit("q", '"sender"', "9/week", "window = true"), {"q": "3/9"}),
        ("", {}),
    ],
)
def test_a_reload_keeps_what_still_has_the_same_meaning(after, figure):
    counted = reloaded(BEFORE, after)
    assert figures(counted, question()) == figure


@pytest.mark.parametrize("text", [BEFORE, limit("a", '"sender"', "4/hour"), BEFORE.replace("4/", "8/")])
def test_after_a_reload_the_limits_go_on_counting(text):
    counted = reloaded(BEFORE, text)
    amount = 8 if "8/" in text else 4
    assert passed(counted, question()) == amount - 3
    assert passed(counted, question(sender="new@x.example")) == amount


def test_a_repeated_question_is_known_across_a_reload():
    former = limits(BEFORE)
    former.decide(question(instance="1"), NOW)
    counted = limits(BEFORE)
    counted.adopt(former, NOW)
    counted.decide(question(instance="1"), NOW)
    assert figures(counted, question()) == {"a": "1/4", "q": "1/4"}


def test_a_reload_with_another_bound_holds_to_it():
    former = limits(limit("a", '"sender"', "4/hour"), max_keys=10_000)
    for i in range(4000):
        former.decide(question(sender=f"s{i}@x.example"), NOW)
    counted = limits(limit("a", '"sender"', "4/hour"), max_keys=1000)
    counted.adopt(former, NOW)
    for i in range(2000):
        counted.decide(question(sender=f"t{i}@x.example"), NOW)
    assert counted.sizes()[0][1] <= 1000


def share_of(text: str, share: float) -> Limits:
    return Limits(loads(text).limit, FOLDER, share=share)


def test_a_process_that_counts_alone_gives_out_its_share_and_at_least_one():
    text = limit("sender", '"sender"', "30/minute") + limit("pair", '["sender", "recipient"]', "1/minute")
    alone = share_of(text, 0.2)
    outcomes = [alone.decide(question(recipient=f"r{i}@b.example"), NOW) for i in range(8)]
    assert [refused(outcome) for outcome in outcomes] == [None] * 6 + ["sender"] * 2
    assert refused(alone.decide(question(), NOW + 9.9)) == "sender"
    assert refused(alone.decide(question(), NOW + 10.0)) is None


@pytest.mark.parametrize("window", ["false", "true"])
def test_a_share_has_room_for_every_message_that_the_whole_has_room_for(window):
    text = limit("bytes", '"sender"', "20MB/hour", f'unit = "byte"\nwindow = {window}')
    alone = share_of(text, 0.1)
    large = question(state="END-OF-MESSAGE", size="15000000")
    assert refused(alone.decide(large, NOW)) is None
    assert refused(alone.decide(large, NOW + 1)) == "bytes"
    assert refused(alone.decide(large, NOW + 3700)) is None
    too_large = question(state="END-OF-MESSAGE", size="25000000")
    assert refused(share_of(text, 0.1).decide(too_large, NOW)) == "bytes"


def test_another_share_counts_on_with_what_is_in_use():
    text = limit("sender", '"sender"', "10/minute")
    whole, half = share_of(text, 1.0), share_of(text, 0.5)
    for _ in range(4):
        whole.decide(question(), NOW)
    half.adopt(whole, NOW)
    assert figures(half, question()) == {"sender": "4/5"}
