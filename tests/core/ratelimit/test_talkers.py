import json

import pytest

from mxweir.config import LimitRule
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.rate import parse_rate
from mxweir.ratelimit.shapes import Shapes
from mxweir.ratelimit.sketch import PERIOD, merged
from mxweir.ratelimit.talkers import Talkers, read_report
from mxweir.testing import question

RULES = [LimitRule(name=name, key=(name,), rate=parse_rate("9/hour")) for name in ("sender", "recipient")]
LIMITS = Limits(RULES, Folder())
SHAPES = Shapes(LIMITS, "mxweir")
BY_NAME = {limit.name: SHAPES.counter(limit, limit.paces.usual) for limit in LIMITS.limits}


def count(talkers: Talkers, *senders: str, instance: str = "1") -> None:
    """Count questions of these senders, sent in one row."""
    asked = [SHAPES.question(question(sender=sender, instance=instance)) for sender in senders]
    questions = [one for one in asked if one is not None]
    talkers.row(questions[0].shape, [key for one in questions for key in one.keys])


def told(talkers: Talkers, name: str) -> dict[str, int]:
    return read_report(talkers.report().encode())[BY_NAME[name].prefix.decode()].counts


@pytest.mark.parametrize("instance", ["1", ""])
def test_each_question_of_a_row_counts_once_with_each_of_its_limits(instance):
    talkers = Talkers(0.0)
    count(talkers, "a@x.example", "b@x.example", "a@x.example", instance=instance)
    assert told(talkers, "sender") == {"a@x.example": 2, "b@x.example": 1}
    assert told(talkers, "recipient") == {"bob@b.example": 3}


def test_what_is_refused_without_asking_counts_too():
    talkers = Talkers(0.0)
    count(talkers, "a@x.example")
    for _ in range(5):
        talkers.one(BY_NAME["sender"], "a@x.example")
    assert told(talkers, "sender") == {"a@x.example": 6}
    assert told(talkers, "recipient") == {"bob@b.example": 1}


def test_a_report_holds_whatever_a_stranger_sent_and_only_the_largest():
    talkers = Talkers(0.0)
    odd = 'x\udcff"\\\n{}@x.example'
    for _ in range(2):
        talkers.one(BY_NAME["sender"], odd)
    for number in range(300):
        talkers.one(BY_NAME["sender"], f"s{number}@x.example")
    found = told(talkers, "sender")
    assert found[odd] == 2
    assert len(found) == 100
    assert talkers.report().isascii()
    summary = read_report(talkers.report().encode())[BY_NAME["sender"].prefix.decode()]
    assert (summary.absent, summary.events) == (1, 302)


def test_reports_of_several_processes_are_merged():
    one, other = Talkers(0.0), Talkers(0.0)
    count(one, "a@x.example")
    count(other, "a@x.example", "b@x.example")
    prefix = BY_NAME["sender"].prefix
    reports = [read_report(each.report().encode())[prefix.decode()] for each in (one, other)]
    assert merged(reports).talkers == [
        ("a@x.example", 2, 2),
        ("b@x.example", 1, 1),
    ]


def test_a_limit_that_nobody_asks_any_more_takes_no_room():
    talkers = Talkers(0.0)
    count(talkers, "a@x.example")
    talkers.tick(PERIOD)
    assert told(talkers, "sender") == {"a@x.example": 1}
    talkers.tick(2 * PERIOD)
    assert json.loads(talkers.report()) == {}
    count(talkers, "b@x.example")
    talkers.tick(2 * PERIOD + 1)
    assert told(talkers, "sender") == {"b@x.example": 1}


@pytest.mark.parametrize("text", ["", "[]", "7", '{"a": 1}', '{"a": [1, 2, 3, 4]}', '{"a": [{}, 0, 0]}', "{"])
def test_what_is_no_report_is_an_error(text):
    with pytest.raises(ValueError, match=r"."):
        read_report(text.encode())
