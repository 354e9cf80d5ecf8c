import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.reply import Reply
from mxweir_milter.changes import Answer, Forged, answer, number, printable, too_many
from mxweir_milter.policy import Treatment, ruling
from mxweir_milter.testing import score
from mxweir_milter.verdict import Failed, Reason, Scored, Thresholds

ALL = Thresholds(5.0, 8.0, 12.0)


def told(result, thresholds=ALL, forged=None, queue_id="4XyZ1", subject=b" Hello", **treatment):
    by = ruling(result, Treatment(thresholds=thresholds, **treatment))
    return answer(by, result, forged or Forged(), subject, queue_id)


def seen(*names):
    forged = Forged()
    for name in names:
        forged.see(name.encode())
    return forged


def test_ham_gets_four_fields_that_say_so():
    assert told(Scored(1.26, 5.0, ("A_RULE", "B_RULE"), "spamd")) == Answer(
        add=(
            ("X-Spam-Flag", "NO"),
            ("X-Spam-Score", "1.3"),
            ("X-Spam-Status", "No, score=1.3 required=5.0 tests=A_RULE,B_RULE"),
            ("X-Spam-Scanner", "mxweir spamd"),
        )
    )


def test_tagged_mail_is_flagged_and_accepted():
    given = told(score(7.0))
    assert given.reply is None
    assert not given.hold
    assert dict(given.add)["X-Spam-Flag"] == "YES"
    assert dict(given.add)["X-Spam-Status"].startswith("Yes, score=7.0 required=5.0 tests=")


def test_quarantined_mail_is_flagged_and_held():
    given = told(score(9.0))
    assert given.reply is None
    assert given.hold == "mxweir: score 9.0"
    assert dict(given.add)["X-Spam-Flag"] == "YES"


def test_rejected_mail_is_refused_with_a_reason_and_nothing_else():
    text = "Message refused as spam (score 15.2, limit 12.0, id 4XyZ1)"
    assert told(score(15.2)) == Answer(Reply("550", "5.7.1", text))


def test_a_message_without_symbols_has_no_tests():
    assert dict(told(Scored(0.0, 5.0, (), "spamd")).add)["X-Spam-Status"].endswith("tests=none")


def test_a_refusal_says_what_the_policy_says_and_the_figures():
    reply = told(score(15.2), reject_text="No spam, please", queue_id="").reply
    assert str(reply) == "550 5.7.1 No spam, please (score 15.2, limit 12.0)"


def test_a_subject_is_rewritten_where_it_stands_and_the_message_marked_as_ever():
    given = told(score(6.0), Thresholds(5.0, rewrite_subject_at=6.0))
    assert given.change == (("Subject", 1, "[SPAM] Hello"),)
    assert [name for name, _ in given.add] == [
        "X-Spam-Flag",
        "X-Spam-Score",
        "X-Spam-Status",
        "X-Spam-Scanner",
    ]


def test_a_message_without_a_subject_gets_one():
    given = told(score(6.0), Thresholds(5.0, rewrite_subject_at=6.0), subject=None)
    assert given.change == ()
    assert given.add[-1] == ("Subject", "[SPAM]")


def test_held_mail_has_its_subject_rewritten_too_for_when_it_is_released():
    given = told(score(9.0), Thresholds(5.0, 8.0, rewrite_subject_at=6.0), subject_tag="***")
    assert given.hold
    assert given.change == (("Subject", 1, "*** Hello"),)


def test_unscanned_mail_has_one_field_with_the_reason():
    given = told(Failed(Reason.DEADLINE))
    assert given == Answer(add=(("X-Spam-Status", "unscanned, reason=deadline"),))


def test_unscanned_mail_is_deferred_where_the_policy_says_so():
    reply = told(Failed(Reason.DEADLINE), unscanned="defer").reply
    assert reply is not None
    assert (reply.code, reply.enhanced, reply.permanent) == ("451", "4.7.1", False)


def test_unscanned_mail_is_held_where_the_policy_says_so():
    given = told(Failed(Reason.UNREACHABLE), unscanned="quarantine")
    assert given.hold == "mxweir: unscanned, engine unreachable"
    assert given.add == (("X-Spam-Status", "unscanned, reason=engine unreachable"),)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.passes])
@pytest.mark.parametrize("unscanned", ["accept", "defer", "quarantine"])
def test_what_no_retry_can_mend_is_never_deferred_or_held(reason, unscanned):
    assert told(Failed(reason), unscanned=unscanned) == Answer(
        add=(("X-Spam-Status", f"unscanned, reason={reason}"),)
    )


def test_every_instance_of_every_field_of_the_family_is_removed_the_last_one_first():
    forged = seen("Subject", "X-Spam-Flag", "x-spam-flag", "X-SPAM-LEVEL", "X-Spammer", "X-Spam-Flag")
    assert told(score(1.0), forged=forged).remove == (
        ("x-spam-flag", 3),
        ("x-spam-flag", 2),
        ("x-spam-flag", 1),
        ("x-spam-level", 1),
    )
    assert told(Failed(Reason.DEADLINE), forged=forged).remove


def test_hundreds_of_forged_fields_are_too_many_and_remembered_no_more():
    forged = seen(*[f"X-Spam-{i}" for i in range(10_000)])
    assert forged.too_many
    assert len(forged.removals()) < 1000
    assert too_many().reply == Reply("550", "5.6.0", "Message has too many X-Spam header fields")


def test_forged_fields_deep_in_a_long_header_count_for_more():
    assert not seen(*["X-Spam-Flag"] * 20).too_many
    assert seen(*["X-Other"] * 50_000, *["X-Spam-Flag"] * 20).too_many


def test_a_few_forged_fields_with_names_as_long_as_a_message_are_too_many_and_not_kept():
    forged = seen("X-Spam-" + "a" * 60_000, "X-Spam-" + "b" * 60_000, "X-Spam-" + "c" * 60_000)
    assert forged.too_many
    assert len(forged.removals()) == 1


def test_an_honest_long_header_is_not_too_many():
    assert not seen(*["Received"] * 200, *["X-Spam-Report"] * 50, *["X-Other"] * 5000).too_many


SYMBOLS = st.lists(st.from_regex(r"[A-Z][A-Z0-9_]{0,79}", fullmatch=True), max_size=200)


@given(st.floats(-1e6, 1e6), SYMBOLS)
def test_values_are_folded_printable_ascii_in_short_lines(points, symbols):
    for name, value in told(Scored(points, 5.0, tuple(symbols), "spamd"), Thresholds(5.0)).add:
        lines = f"{name}: {value}".split("\n")
        assert all(line.startswith("\t") for line in lines[1:])
        assert all(" " <= c <= "~" for line in lines for c in line.removeprefix("\t"))
        assert all(len(line) <= 82 for line in lines)


@given(st.floats(-1e6, 1e6), SYMBOLS)
def test_unfolding_gives_back_every_symbol(points, symbols):
    status = dict(told(Scored(points, 5.0, tuple(symbols), "spamd"), Thresholds(5.0)).add)["X-Spam-Status"]
    found = re.search(r" tests=(\S*)$", status.replace("\n\t", " ", 1) if "\n\ttests=" in status else status)
    unfolded = re.sub(r"\n\t", "", status.replace("\n\ttests=", " tests="))
    assert unfolded.partition(" tests=")[2].split(",") == (symbols or ["none"]), found


@given(st.text(max_size=500))
def test_no_text_from_outside_can_leave_its_field_or_reply(text):
    shown = printable(text)
    assert len(shown) <= 200
    assert all(" " <= c <= "~" and c != "%" for c in shown)


@pytest.mark.parametrize(
    ("points", "shown"), [(0.0, "0.0"), (-0.04, "0.0"), (4.96, "5.0"), (-2.34, "-2.3"), (1004.2, "1004.2")]
)
def test_scores_have_one_decimal_and_no_negative_zero(points, shown):
    assert number(points) == shown
