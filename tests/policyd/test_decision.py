import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mxweir.access import Entry
from mxweir.config import ConfigError, loads
from mxweir.events import PASS
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limit, Refusal
from mxweir_policyd.decision import blocked, limited, relay_denied, relay_unknown
from mxweir_policyd.protocol import format_reply

ANY_TEXT = st.text(max_size=60) | st.text(
    alphabet='\n\r\t\0\x1b\x7f\x85\u2028\u202e\udcff"\\ aé', max_size=20
)


def entry(reason: str) -> Entry:
    return Entry(0, False, "sender", "bert@a.example", reason, float("inf"))


def refusal(of: Limit, key: str = "k", wait: float = 5.0) -> Refusal:
    return Refusal(of, key, "1/1", wait, of.rate(key))


def limit(**settings: object) -> Limit:
    """A limit by sender, one an hour, with these settings as in the file."""
    given = {"name": "a", "key": "sender", "rate": "1/hour"} | settings
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
    (rule,) = loads(f"[[limit]]\n{lines}").limit
    return Limit(rule, Folder(), 1000)


def test_a_pass_is_dunno_and_never_ok() -> None:
    assert PASS.reply == "DUNNO"


@given(ANY_TEXT)
def test_whatever_domain_a_stranger_names_the_reply_is_one_line_and_sent(domain: str) -> None:
    assert format_reply(relay_denied(domain).reply)
    assert format_reply(relay_unknown(domain).reply)


@given(ANY_TEXT)
def test_a_reason_that_the_configuration_takes_can_be_sent_and_others_are_refused_there(reason: str) -> None:
    quoted = json.dumps(reason, ensure_ascii=True)
    assume("\\ud" not in quoted)  # TOML has no way to write half a character
    try:
        loads(f'[[access]]\nblock = "sender"\nvalue = "a@b.example"\nreason = {quoted}\n')
    except ConfigError:
        assert not reason.isprintable()
    else:
        assert format_reply(blocked(entry(reason)).reply)


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        ("", "554 5.7.1 Access denied: blocked by the operator of this host"),
        ("write to abuse@example.org", "554 5.7.1 Access denied: write to abuse@example.org"),
    ],
)
def test_a_block_gives_its_reason(reason: str, reply: str) -> None:
    assert blocked(entry(reason)).reply == reply


def test_a_denied_domain_is_named_only_if_it_is_one() -> None:
    assert relay_denied("foreign.example").reply == "550 5.7.1 foreign.example: relay access denied"
    assert relay_denied("[192.0.2.1] 250").reply == "550 5.7.1 relay access denied"
    assert relay_denied("x" * 254).reply == "550 5.7.1 relay access denied"


@pytest.mark.parametrize(
    ("settings", "beginning"),
    [
        ({}, "550 5.7.1 You are sending too much mail (limit a, 1/hour)"),
        ({"refuse": "defer"}, "450 4.7.1 You are sending too much mail (limit a, 1/hour)"),
        ({"key": "recipient"}, "550 5.2.1 This recipient is getting too much mail (limit a, 1/hour)"),
        ({"key": "recipient_domain", "refuse": "defer"}, "450 4.2.1 This recipient is getting too much"),
        ({"key": ["sender", "recipient"]}, "550 5.7.1 You are sending too much mail"),
        ({"distinct": "recipient"}, "550 5.7.1 Too many different addresses from you (limit a, 1/hour)"),
        ({"distinct": "recipient", "refuse": "defer"}, "450 4.7.1 Too many different addresses from you"),
    ],
)
def test_a_limits_reply_has_the_code_of_whom_it_is_about(settings: dict[str, object], beginning: str) -> None:
    decision = limited(refusal(limit(**settings)), ())
    assert decision.reply.startswith(beginning)
    assert decision.verdict == ("reject" if decision.reply.startswith("550") else "defer")


@pytest.mark.parametrize(
    ("wait", "said"),
    [(0.01, "1 s"), (1.0, "1 s"), (1.01, "2 s"), (599.5, "10 min"), (600.0, "10 min"), (3601.0, "61 min")],
)
def test_the_wait_is_rounded_up_so_that_who_waits_it_out_passes(wait: float, said: str) -> None:
    assert limited(refusal(limit(), wait=wait), ()).reply.endswith(f"there is room again in {said}")


def test_a_rule_that_decided_is_named_with_its_key_and_its_figure() -> None:
    decision = limited(refusal(limit(name="sender-rate"), key="bert@a.example"), ())
    assert (decision.check, decision.rule) == ("limits", "sender-rate")
    assert (decision.key, decision.figure) == ("bert@a.example", "1/1")
