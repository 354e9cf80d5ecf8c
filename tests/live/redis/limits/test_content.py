"""Messages that take part in a limit by several keys: a process and Redis say the same, all or nothing."""

from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.facts import ContentFacts, Sender
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir_ops.lab.counted import ERA, FOLDER, Counted, Direct

RULES = loads("""
[[limit]]
name = "pair"
key = ["from_org", "recipient"]
rate = "4/minute"

[[limit]]
name = "reply-to"
key = "reply_to"
rate = "9/hour"
burst = 9
overrides = { "a@x.example" = "unlimited" }

[[limit]]
name = "messages"
key = "from_org"
unit = "message"
window = true
rate = "5/minute"

[[limit]]
name = "bytes"
key = ["reply_to_org", "recipient_domain"]
unit = "byte"
rate = "900/minute"

[[limit]]
name = "fan-out"
key = "client_network"
distinct = "reply_to"
rate = "6/minute"

[[limit]]
name = "watched"
key = ["from", "reply_to"]
unit = "message"
rate = "2/hour"
mode = "observe"
""").limit


def folded(address: str) -> Sender:
    return FOLDER.sender[address.encode()]


ADDRESSES = st.lists(
    st.sampled_from(["a@x.example", "b@x.example", "a@sub.x.example", "c@y.example"]), max_size=3, unique=True
)
RECIPIENTS = st.lists(
    st.sampled_from(["r@one.example", "s@one.example", "t@two.example"]), min_size=1, max_size=3
)


def message(
    authors: Sequence[str],
    repliers: Sequence[str],
    recipients: Sequence[str],
    size: int = 1,
    told: bool = False,
) -> ContentFacts:
    """With `told`, a message that is known when it comes again."""
    return ContentFacts(
        client=FOLDER.client[b"192.0.2.1"],
        sender=folded("s@s.example"),
        helo=b"",
        sasl_username=b"",
        instance=repr((authors, repliers, recipients, size)).encode() if told else b"",
        size_in_bytes=size,
        recipients=tuple(FOLDER.recipient[each.encode()] for each in recipients),
        recipient_count=len(recipients),
        authors=tuple(map(folded, authors)),
        repliers=tuple(map(folded, repliers)),
    )


MESSAGES = st.lists(
    st.builds(message, ADDRESSES, ADDRESSES, RECIPIENTS, st.sampled_from([1, 100, 400]), st.booleans()),
    min_size=4,
    max_size=12,
)


def said(outcome: Outcome) -> tuple[object, ...]:
    refusal = outcome.refusal
    return (refusal and (refusal.limit.name, refusal.key, refusal.figure), outcome.observed)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=25)
@given(messages=MESSAGES)
def test_a_message_is_answered_and_charged_as_by_one_process(
    counted: Callable[..., Counted], servers: Direct, messages: list[ContentFacts]
) -> None:
    shared, alone = counted(*RULES), Limits(RULES, FOLDER)
    for number, facts in enumerate(messages):
        seconds = number * 5
        (there,) = shared.at(seconds * 1_000_000).anew(facts)
        assert said(there) == said(alone.decide(facts, ERA + seconds))
    assert servers.keys_without_expiry() == []


def test_as_many_keys_as_a_message_may_have_are_asked_about(counted: Callable[..., Counted]) -> None:
    shared = counted(*loads('[[limit]]\nname = "n"\nkey = ["from", "recipient"]\nrate = "2/day"').limit).at(0)
    facts = message(["a@x.example"], [], [f"r{number}@one.example" for number in range(1000)])
    assert [shared.anew(facts)[0].refusal is None for _ in range(3)] == [True, True, False]
    assert {getattr(event, "by", event) for event in shared.told.events} == {"redis"}


def test_a_message_of_a_thousand_recipients_may_take_part_in_two_limits_by_recipient(
    counted: Callable[..., Counted],
) -> None:
    text = "".join(
        f'[[limit]]\nname = "pair{n}"\nkey = ["from", "recipient"]\nrate = "{2 + n}/hour"\n' for n in range(2)
    )
    limits = counted(*loads(text).limit).at(0)
    facts = message(["a@x.example"], [], [f"r{n}@one.example" for n in range(1000)])
    outcomes = [limits.anew(facts)[0].refusal for _ in range(3)]
    assert [refusal and (refusal.limit.name, refusal.key, refusal.figure) for refusal in outcomes] == [
        None,
        None,
        ("pair0", "a@x.example, r0@one.example", "2/2"),
    ]
    assert {getattr(event, "by", event) for event in limits.told.events} == {"redis"}


def test_messages_of_one_row_that_have_their_keys_in_another_order_count_for_each_other(
    counted: Callable[..., Counted],
) -> None:
    text = '[[limit]]\nname = "{0}"\nkey = "reply_to"\nunit = "message"\nrate = "3/hour"\nwindow = {1}\n'
    addresses = ["b@x.example", "c@y.example"]
    for window in ("false", "true"):
        limits = counted(*loads(text.format(f"w-{window}", window)).limit).at(0)
        row = [message([], addresses[:: (-1) ** n], ["r@one.example"]) for n in range(4)]
        refusals = [outcome.refusal for outcome in limits.anew(*row)]
        assert [refusal and refusal.figure for refusal in refusals] == [None, None, None, "3/3"]
