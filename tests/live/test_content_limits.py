"""Limits by From and Reply-To through Postfix: campaigns whose envelopes say nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mxweir.config import load
from mxweir.endpoint import Inet, Unix
from mxweir_ops.lab.client import STRANGER, Client, Reply, send
from mxweir_ops.lab.daemons import get
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.letters import letter
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.stack import Plan, Stack

LIMIT = 120
RULES = f"""
[[limit]]
name = "reply-to"
key = "reply_to"
unit = "message"
window = true
rate = "{LIMIT}/week"

[[limit]]
name = "from-org"
key = "from_org"
window = true
rate = "5/week"
refuse = "defer"
overrides = {{ "spam.example" = "unlimited", "sender.example" = "unlimited" }}

[[limit]]
name = "volume"
key = "from"
unit = "byte"
window = true
rate = "200KiB/week"

[[limit]]
name = "watched"
key = ["reply_to_org", "recipient"]
unit = "message"
window = true
rate = "1/week"
mode = "observe"

[[access]]
allow = "recipient"
value = "abuse@example.org"

[log]
format = "json"
"""
A_SESSION = 8
"""Messages in one session: Postfix slows a client down after ten refusals."""


@pytest.fixture(scope="module")
def engine() -> Iterator[HostileEngine]:
    with temporary_directory() as directory:
        at = Unix(str(directory / "engine"))
        with HostileEngine("spamd", at, Manner.PROMPT) as engine:
            yield engine


@pytest.fixture(scope="module", params=["asyncio", "libmilter"])
def mx(request: pytest.FixtureRequest, engine: HostileEngine) -> Iterator[Stack]:
    with temporary_directory() as directory:
        milter = f'front = "{request.param}"\nmax_scan_size = "64KiB"'
        plan = Plan(engine=engine.endpoint, milter=milter, rest=RULES)
        with Stack(Path(directory), plan) as stack:
            yield stack


def campaign(stack: Stack, messages: Sequence[int], reply_to: str) -> list[Reply]:
    """Messages of as many senders, each in six-level subdomains of its own; what became of each."""
    replies = []
    for first in range(0, len(messages), A_SESSION):
        numbers = messages[first : first + A_SESSION]
        with Client(stack.port, f"198.51.100.{numbers[0] % 250 + 1}") as client:
            for number in numbers:
                sender = f"u{number}@a{number}.b{number}.c{number}.d.e{number}.f.spam.example"
                text = letter(sender=f"You won <{sender}>", headers={"Reply-To": f"Claims <{reply_to}>"})
                replies.append(client.send(sender, ["anna@example.org"], text).last)
    return replies


def test_a_campaign_of_ever_new_senders_with_one_reply_to_ends_at_exactly_the_limit(mx: Stack) -> None:
    codes = [reply.code for reply in campaign(mx, range(LIMIT + 24), "Claims+2026@prize.example")]
    assert codes == [250] * LIMIT + [550] * 24

    [other] = campaign(mx, [9000], "someone@else.example")
    assert other.code == 250

    [refused] = campaign(mx, [9001], "claims+2026@PRIZE.example.")
    assert refused.text.startswith("5.7.1 You are sending too much mail (limit reply-to, 120/week); there is")
    told = mx.milter.wait_for(
        event="scan", outcome="limited", sender="u9001@a9001.b9001.c9001.d.e9001.f.spam.example"
    )
    assert (told["limit"], told["key"], told["used"]) == ("reply-to", "claims@prize.example", "120/120")
    assert told["action"] == f"550 {refused.text}"
    assert "engine" not in told  # it was not scanned


def test_a_limit_of_the_from_domain_counts_recipients_and_defers_the_whole_message(
    mx: Stack, sender: str
) -> None:
    def replies(recipients: int) -> Reply:
        to = [f"r{number}@example.org" for number in range(recipients)]
        return send(mx.port, sender, to, letter(sender="x@deep.down.shop.example")).last

    assert [replies(3).code, replies(3).code, replies(2).code, replies(1).code] == [250, 450, 250, 450]


def test_what_is_too_large_to_scan_is_counted_in_whole(mx: Stack, sender: str) -> None:
    text = letter(body="y" * 70 + "\n" * 1, sender="large@bulk.example") + b"z" * 70_000 + b"\r\n"
    codes = [send(mx.port, sender, ["anna@example.org"], text).last.code for _ in range(3)]
    assert codes == [250, 250, 550]


def test_who_is_spared_the_scan_is_not_spared_the_limits(mx: Stack, sender: str) -> None:
    def reply(recipient: str, address: str | None) -> Reply:
        return send(mx.port, sender, [recipient], letter(sender="x@users.example"), address).last

    ours = [reply("anna@example.org", None).code for _ in range(6)]
    assert ours == [250] * 5 + [450]
    skipped = mx.milter.wait_for(event="scan", outcome="skipped", sender=sender)
    assert skipped["reason"] == "mynetworks"
    assert reply("anna@example.org", STRANGER).code == 450
    assert reply("abuse@example.org", STRANGER).code == 250  # an entry that allows does spare them


def test_a_limit_that_observes_refuses_nothing_and_is_told_and_counted(mx: Stack, sender: str) -> None:
    text = letter(headers={"Reply-To": "a@many.observed.example, b@other.observed.example"})
    replies = [send(mx.port, sender, ["anna@example.org"], text).last.code for _ in range(2)]
    assert replies == [250, 250]
    told = "watched observed.example, anna@example.org 1/1"
    assert mx.milter.wait_for(event="scan", outcome="ham", sender=sender, observed=told)


def test_what_was_refused_is_in_the_metrics_by_rule_and_action(mx: Stack, sender: str) -> None:
    for _ in range(6):
        send(mx.port, sender, ["anna@example.org"], letter(sender="x@measured.example"))
    page = load(mx.config_file).milter.http
    assert isinstance(page, Inet)
    text = get(page, "/metrics")[1]
    assert 'mxweir_milter_decisions_total{action="defer",rule="from-org"}' in text
    assert "measured.example" not in text


def test_counters_outlive_a_restart(mx: Stack, sender: str) -> None:
    def code() -> int:
        return send(mx.port, sender, ["anna@example.org"], letter(sender="x@lasting.example")).last.code

    assert [code() for _ in range(4)] == [250] * 4
    mx.milter.stop()
    mx.milter.start()
    assert [code(), code()] == [250, 450]
