"""The express lane against the long way, which defines the answer."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.domains.match import Match, State
from mxweir.events import PASS, Decided, Passed
from mxweir.facts import KEYS, READERS
from mxweir.testing import Recorder, SettableClock
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import Request
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.worker import build_pipeline

NOW = SettableClock().now


class Table:
    """Names below x.example are ours."""

    ours: frozenset[str] = frozenset()

    def state(self, domain: str) -> State:
        return State.OURS if domain.endswith("x.example") else State.NOT_OURS

    def find(self, domain: str) -> Match:
        return Match(self.state(domain))


def limit(name: str, key: str, rate: str, more: str = "") -> str:
    return f'[[limit]]\nname = "{name}"\nkey = {key}\nrate = "{rate}"\n{more}\n'


RATES = (
    limit("client", '"client_network"', "6/minute", "burst = 8")
    + limit("org", '"sender_org"', "9/minute", 'overrides = { "b.example" = "3/minute", "<>" = "unlimited" }')
    + limit(
        "user", '["sender", "sasl_username"]', "4/10 minutes", 'overrides = { "a@a.example, u" = "2/minute" }'
    )
    + limit("mailbox", '"recipient"', "5/minute", 'refuse = "defer"')
    + limit("triple", '["helo", "recipient_domain", "sender"]', "3/minute")
    + limit("helo", '"helo"', "7/minute", 'mode = "observe"')
)
MIXED = (
    RATES
    + limit("day", '"sender"', "12/day", "window = true")
    + limit("fan", '"client_address"', "3/hour", 'distinct = "sender_domain"')
    + limit("size", '"sender"', "1MB/hour", 'unit = "byte"')
)
LISTS = """
[[access]]
allow = "sender_org"
value = "b.example"

[[access]]
block = "helo"
value = "bad"
"""
ONE = limit("one", '"sender"', "3/minute")

REQUESTS = st.builds(
    Request,
    protocol_state=st.sampled_from([b"RCPT", b"RCPT", b"RCPT", b"DATA", b"END-OF-MESSAGE"]),
    client_address=st.sampled_from([b"192.0.2.1", b"192.0.2.2", b"198.51.100.1", b"unknown"]),
    helo_name=st.sampled_from([b"", b"h", b"bad", b"h" * 300]),
    sender=st.sampled_from([b"a@a.example", b"b@x.b.example", b"", b"cron"]),
    recipient=st.sampled_from(
        [b"r@x.example", b"s@sub.x.example", b"r@foreign.example", b"", b"r@[192.0.2.9]"]
    ),
    instance=st.sampled_from([b"", b"1", b"2"]),
    size=st.sampled_from([b"", b"400000"]),
    sasl_username=st.sampled_from([b"", b"u", b"v"]),
    policy_context=st.sampled_from([b"", b"relay", b"limits", b"message", b"other"]),
)
ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 7.0, 65.0]), st.lists(REQUESTS, max_size=8)), max_size=15
)


def pipeline(text: str, max_keys: int = 100_000) -> Pipeline:
    return build_pipeline(loads(f"[policyd]\nmax_keys = {max_keys}\n{text}"), cast("Replica", Table()))


def remembered(of: Pipeline, now: float) -> list[tuple[str, list[Any]]]:
    return [(name, sorted(rows, key=repr)) for name, rows in of.limits.rows(now)]


def told(text: str, max_keys: int, rows: Sequence[tuple[float, list[Request]]], express: bool) -> object:
    """Everything that comes of some rows of requests: replies, decisions, counters."""
    clock, recorder = SettableClock(), Recorder()
    made = pipeline(text, max_keys)
    if not express:
        made.express = lambda requests, replies, now: None
    answerer = Answerer(made, clock, recorder, tell_each=True)
    replies = []
    for gap, requests in rows:
        clock.advance(gap)
        replies.append(answerer.answer(requests))
    decided = []
    for event in recorder.events:
        if isinstance(event, Passed):
            assert event.questions == len(event.facts)
            decided += [(facts, PASS) for facts in event.facts]
        else:
            assert isinstance(event, Decided)
            decided.append((event.facts, event.decision))
    return replies, decided, remembered(made, clock())


@pytest.mark.parametrize("text", ["", ONE, RATES, MIXED, LISTS + RATES])
@pytest.mark.parametrize("max_keys", [1000, 100_000])
@given(ROWS)
def test_the_express_lane_answers_tells_and_remembers_what_the_long_way_does(text, max_keys, rows):
    assert told(text, max_keys, rows, express=True) == told(text, max_keys, rows, express=False)


@given(st.lists(st.integers(0, 400), min_size=200, max_size=600))
def test_a_table_that_is_full_remembers_the_same_by_either_way(senders):
    rows = [
        (0.01, [Request(b"RCPT", sender=b"s%d@a.example" % i, recipient=b"r@x.example")]) for i in senders
    ]
    text = "".join(limit(f"l{i}", '"sender"', "9/minute") for i in range(10))
    assert told(text, 1000, rows, express=True) == told(text, 1000, rows, express=False)


@pytest.mark.parametrize("text", [RATES, MIXED, LISTS + MIXED])
def test_one_more_recipient_of_ours_takes_the_express_lane_whatever_the_kinds_of_limits(text):
    made, replies = pipeline(text), list[bytes]()
    asked = Request(b"RCPT", b"192.0.2.1", b"h", b"a@a.example", b"r@x.example", sasl_username=b"v")
    made.express([asked], replies, NOW)
    assert replies == [b"action=DUNNO\n\n"]
    assert len(remembered(made, NOW)) >= 6
    assert all(len(rows) == 1 for name, rows in remembered(made, NOW) if not name.startswith("size"))


@pytest.mark.parametrize("key", KEYS)
def test_the_express_lane_counts_by_the_very_key_of_the_limit(key):
    asked = Request(
        b"RCPT",
        b"192.0.2.1",
        b"h.example",
        b"a@mail.sub.a.example",
        b"r@sub.x.example",
        sasl_username=b"user",
    )
    made, replies = pipeline(limit("k", f'["{key}"]', "9/day")), list[bytes]()
    made.express([asked], replies, NOW)
    facts = made.facts(asked)
    assert [[row[0] for row in rows] for _, rows in remembered(made, NOW)] == [[READERS[key](facts)]]


def test_the_lane_goes_by_the_tables_of_the_limits_after_a_reload():
    former, made, replies = pipeline(ONE), pipeline(ONE), list[bytes]()
    asked = [Request(b"RCPT", sender=b"a@a.example", recipient=b"r@x.example")]
    former.express(asked, replies, NOW)
    made.adopt(former, NOW)
    for _ in range(3):
        made.express(asked, replies, NOW)
    assert len(replies) == 3
