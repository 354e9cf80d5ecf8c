"""The page of replies, against the replies that the code gives."""

import re
from collections.abc import Callable
from pathlib import Path

from mxweir.access import Entry
from mxweir.config import LimitRule
from mxweir.config import readers as read
from mxweir.events import PASS
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limit, Refusal
from mxweir_milter import changes
from mxweir_milter.changes import Forged
from mxweir_milter.policy import Treatment, ruling
from mxweir_milter.verdict import Failed, Reason, Scored, Thresholds
from mxweir_policyd import decision

TOP = Path(__file__).parents[2]
WORDS = {
    "REASON": ".+",
    "DOMAIN": r"[a-z0-9._-]+",
    "NAME": r"[a-z0-9_-]+",
    "RATE": r"\d+/[0-9a-z ]+",
    "TIME": r"\d+ (?:s|min)",
    "SCORE": r"[\d.]+",
    "LIMIT": r"[\d.]+",
    "QUEUEID": r"\w+",
}


def limited(key: str, distinct: str, refuse: str) -> str:
    """The reply of a limit of this kind."""
    rule = LimitRule(name="n-1", key=(key,), rate=read.rate("3/hour"), distinct=distinct, refuse=refuse)
    refusal = Refusal(Limit(rule, Folder(), 100), "k", "3/3", 1199.5, rule.rate)
    return decision.limited(refusal, ()).reply


def policy_replies() -> set[str]:
    """One of each kind that the policy daemon gives."""
    entry = Entry(0, False, "sender", "s@example.org", "", 0.0)
    kinds = [("recipient", ""), ("sender", ""), ("sender_org", "sender_domain")]
    return {
        PASS.reply,
        decision.blocked(entry).reply,
        decision.relay_denied("elsewhere.example").reply,
        decision.relay_denied("not a name").reply,
        decision.relay_unknown("elsewhere.example").reply,
        *(limited(key, distinct, refuse) for key, distinct in kinds for refuse in ("reject", "defer")),
    }


def milter_replies() -> set[str]:
    """One of each kind that the milter gives."""
    treatment = Treatment(thresholds=Thresholds(reject_at=12.0), unscanned="defer")
    results = Scored(20.0, 5.0, ("GTUBE",), "spamd"), Failed(Reason.DEADLINE)
    given = [changes.answer(ruling(each, treatment), each, Forged(), None, "A1") for each in results]
    given.append(changes.too_many())
    return {str(answer.reply) for answer in given}


def replies_by_content() -> set[str]:
    """One of each kind that limits give in the milter."""
    kinds = [("reply_to", ""), ("sender_org", "reply_to"), ("recipient", "reply_to")]
    return {limited(key, distinct, refuse) for key, distinct in kinds for refuse in ("reject", "defer")}


def templates(page: str, rows: Callable[[str], list[list[str]]], heading: str) -> dict[str, re.Pattern[str]]:
    """The replies under a heading, each with a pattern that matches what it stands for."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    found = {}
    for row in rows(section):
        text = row[0].strip("`")
        pattern = re.escape(text)
        for word, values in WORDS.items():
            pattern = pattern.replace(word, values)
        found[text] = re.compile(pattern)
    return found


def test_every_reply_of_the_policy_daemon_is_on_the_page_and_no_other(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    compare(templates(page("replies"), rows, "Policy daemon"), policy_replies())


def test_every_reply_of_the_milter_is_on_the_page_and_no_other(
    page: Callable[[str], str], rows: Callable[[str], list[list[str]]]
) -> None:
    compare(templates(page("replies"), rows, "Milter"), milter_replies() | replies_by_content())


def compare(known: dict[str, re.Pattern[str]], given: set[str]) -> None:
    for reply in given:
        assert [text for text, pattern in known.items() if pattern.fullmatch(reply)], reply
    for text, pattern in known.items():
        assert any(pattern.fullmatch(reply) for reply in given), text


def test_these_tests_know_every_code_that_stands_in_the_code(page: Callable[[str], str]) -> None:
    written = (TOP / "policyd/mxweir_policyd/decision.py").read_text()
    codes = set(re.findall(r'"(\d{3} \d)', written)) | set(re.findall(r'f?"(\d{3} \d)\.', written))
    assert {reply[:5] for reply in policy_replies()} >= codes
    replies = re.findall(
        r'Reply\("(\d{3})", "([\d.]+)"', (TOP / "milter/mxweir_milter/changes.py").read_text()
    )
    assert {" ".join(reply.split()[:2]) for reply in milter_replies()} == {" ".join(r) for r in replies}
