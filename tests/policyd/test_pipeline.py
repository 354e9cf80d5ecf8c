from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.domains.match import Match, State, digest, find
from mxweir.domains.record import Record
from mxweir_policyd.decision import UNCONFIRMED
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import Request
from mxweir_policyd.worker import build_pipeline

CONFIG = """
[[access]]
allow = "sender"
value = "friend@a.example"

[[access]]
block = "sender_org"
value = "a.example"
expires = 2027-01-15T08:01:00Z

[[access]]
block = "client_network"
value = "192.0.2.0/28"

[[limit]]
name = "trial"
key = "sender"
rate = "1/hour"
mode = "observe"

[[limit]]
name = "sender"
key = "sender"
rate = "3/minute"
overrides = { "x@c.example" = "unlimited", "y@c.example" = "1/day" }

[[limit]]
name = "window"
key = ["client_network", "recipient_domain"]
rate = "5/hour"
window = true
refuse = "defer"

[[limit]]
name = "fan-out"
key = "client_network"
distinct = "sender_domain"
rate = "2/minute"

[[limit]]
name = "volume"
key = "sender_org"
unit = "byte"
rate = "10KB/hour"

[[limit]]
name = "messages"
key = "helo"
unit = "message"
rate = "2/hour"
"""
NOW = 1_800_000_000.0
REPLIES = ("DUNNO", "450 4.", "550 5.", "554 5.")


class Table:
    """A table of domains without a file."""

    def __init__(self, known: State) -> None:
        records = [Record("example.org"), Record("tree.example", include_subdomains=True)]
        self._known = known
        self._stored = {digest(record.domain): record.encode() for record in records}

    def find(self, domain: str) -> Match:
        return find(domain, self._stored.get) if self._known is State.OURS else Match(self._known)

    ours: frozenset[str] = frozenset()

    def state(self, domain: str) -> State:
        return self.find(domain).state


def pipeline(domains: Any) -> Pipeline:
    return build_pipeline(loads(CONFIG), domains)


text = st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"").replace(b"\0", b""))


def one_of(*values: bytes) -> st.SearchStrategy[bytes]:
    """Mostly one of these, so that limits fill and entries match; sometimes anything."""
    return st.sampled_from(values) | st.sampled_from(values) | text


requests = st.builds(
    Request,
    protocol_state=one_of(b"RCPT", b"RCPT", b"END-OF-MESSAGE", b"DATA"),
    client_address=one_of(b"192.0.2.1", b"198.51.100.1", b"2001:db8::1", b"unknown"),
    helo_name=one_of(b"", b"mail.a.example"),
    sender=one_of(
        b"", b"bert@a.example", b"friend@a.example", b"x@c.example", b"y@c.example", b"z@d.c.example"
    ),
    recipient=one_of(b"anna@example.org", b"x@below.tree.example", b"x@foreign.example", b""),
    queue_id=one_of(b""),
    instance=one_of(b"", b"1.1.0", b"1.1.1"),
    size=one_of(b"0", b"6000", b"999999999999999999999"),
    sasl_username=one_of(b"", b"bert"),
    policy_context=one_of(b"", b"relay", b"limits", b"message", b"typo"),
)
questions = st.lists(st.tuples(requests, st.floats(0, 100)), min_size=1, max_size=20)


@given(questions, st.sampled_from([State.OURS, State.OFF, State.FAILED]))
def test_explain_says_what_decide_then_does_and_changes_nothing(
    asked: list[tuple[Request, float]], known: State
) -> None:
    explained, unexplained = pipeline(Table(known)), pipeline(Table(known))
    now = NOW
    for request, passed in asked:
        now += passed
        facts = explained.facts(request)
        said = explained.explain(facts, now).decision
        assert explained.explain(facts, now).decision == said
        decided = explained.decide(facts, now)
        assert said._replace(observed=decided.observed) == decided
        assert unexplained.decide(facts, now) == decided
        assert decided.reply.startswith(REPLIES)


@given(requests, st.sampled_from([State.OURS, State.OFF, State.FAILED]))
def test_the_trail_names_every_check_of_the_context_and_one_step_for_the_decision(
    request: Request, known: State
) -> None:
    made = pipeline(Table(known))
    facts = made.facts(request)
    decision, trail = made.explain(facts, NOW)
    refusing = [step for step in trail if step.outcome in ("block", "refuse")]
    assert [step.check for step in refusing] == ([] if decision.verdict == "pass" else [decision.check])
    if refusing:
        at = trail.index(refusing[0])
        assert {step.outcome for step in trail[at + 1 :]} <= {"not reached"}


@pytest.fixture
def made() -> Pipeline:
    return pipeline(Table(State.OURS))


def steps(made: Pipeline, **attributes: bytes) -> list[tuple[str, ...]]:
    """The trail of a request to a mailbox of ours, without its notes."""
    usual = Request(
        protocol_state=b"RCPT",
        client_address=b"198.51.100.1",
        sender=b"z@d.c.example",
        recipient=b"anna@example.org",
        helo_name=b"mail.a.example",
    )
    trail = made.explain(made.facts(usual._replace(**attributes)), NOW).trail
    return [(step.check, step.rule, step.key, step.outcome, step.figure) for step in trail]


def test_a_trail_shows_each_check_each_key_and_how_much_of_each_limit_is_used(made: Pipeline) -> None:
    assert steps(made) == [
        ("access", "", "", "pass", ""),
        ("relay", "", "example.org", "pass", ""),
        ("limits", "trial", "z@d.c.example", "pass", "0/1"),
        ("limits", "sender", "z@d.c.example", "pass", "0/3"),
        ("limits", "window", "198.51.100.0/24, example.org", "pass", "0/5"),
        ("limits", "fan-out", "198.51.100.0/24", "pass", "0/2"),
    ]


def test_a_trail_shows_what_is_behind_a_refusal_as_not_reached(made: Pipeline) -> None:
    shown = steps(made, client_address=b"192.0.2.1", recipient=b"x@foreign.example")
    assert shown[0] == ("access", "block client_network", "192.0.2.0/28", "block", "")
    assert [step[3] for step in shown[1:]] == ["not reached"] * 5


def test_an_entry_that_allows_shows_the_limits_as_not_reached_and_the_relay_check_as_passed(
    made: Pipeline,
) -> None:
    shown = steps(made, sender=b"friend@a.example")
    assert [step[3] for step in shown] == ["allow", "pass", *["not reached"] * 4]


def test_a_subdomain_is_explained_by_the_parent_that_includes_it(made: Pipeline) -> None:
    facts = made.facts(Request(recipient=b"x@below.tree.example", policy_context=b"relay"))
    (step,) = made.explain(facts, NOW).trail
    assert step.note == "below tree.example, which includes its subdomains"


def test_a_question_that_was_counted_before_is_explained_as_that(made: Pipeline) -> None:
    facts = made.facts(Request(b"RCPT", b"198.51.100.1", sender=b"z@c.example", instance=b"1.1.0"))
    made.decide(facts, NOW)
    (step,) = [step for step in made.explain(facts, NOW).trail if step.check == "limits"]
    assert step.note == "this very question was counted before"


def test_a_limit_whose_key_the_question_lacks_says_so(made: Pipeline) -> None:
    facts = made.facts(Request(b"RCPT", b"198.51.100.1", sender=b"z@c.example", recipient=b"postmaster"))
    notes = {step.rule: step.note for step in made.explain(facts, NOW).trail}
    assert notes["window"] == "the question lacks this limit's key"


class Unsure:
    """A table that lacks every domain, and somebody else who may have it."""

    ours: frozenset[str] = frozenset()

    def state(self, domain: str) -> State:
        return State.UNCONFIRMED

    def find(self, domain: str) -> Match:
        return Match(State.UNCONFIRMED)


ONE_A_DAY = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "1/day"\n'


@pytest.mark.parametrize(
    ("said", "expected"),
    [(State.OURS, "DUNNO"), (State.NOT_OURS, "550 5.7.1"), (State.FAILED, "450 4.3.0")],
)
def test_a_domain_that_is_unknown_here_is_decided_by_what_postgresql_says(said: State, expected: str) -> None:
    pipeline = build_pipeline(loads(ONE_A_DAY), Unsure())
    facts = pipeline.facts(Request(sender=b"a@b.example", recipient=b"x@new.example"))
    undecided = pipeline.decide(facts, 0.0)
    assert (undecided.verdict, undecided.key) == (UNCONFIRMED, "new.example")
    assert pipeline.decide(facts, 0.0).verdict == UNCONFIRMED, "and nothing was charged for it"
    assert pipeline.decide(facts, 0.0, Match(said)).reply.startswith(expected)
    assert pipeline.unconfirmed(facts) == "new.example"
    explained = pipeline.explain(facts, 0.0, Match(said))
    assert [step.note for step in explained.trail if step.check == "relay"] == [
        f"PostgreSQL was asked: {said.value}"
    ]


def test_what_needs_no_relay_check_needs_nobody_to_be_asked() -> None:
    pipeline = build_pipeline(loads(ONE_A_DAY), Unsure())
    for request in (
        Request(recipient=b"x@new.example", policy_context=b"limits"),
        Request(recipient=b"x@[192.0.2.1]"),
        Request(recipient=b""),
    ):
        facts = pipeline.facts(request)
        assert pipeline.decide(facts, 0.0).reply == "DUNNO"
        assert pipeline.unconfirmed(facts) == ""
