import re
from struct import iter_unpack, pack
from typing import Any

import pytest

from mxweir.config import loads
from mxweir.facts import AnyFacts, Folder
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shapes import (
    CHARGE,
    REPEATS_SECONDS,
    Question,
    Said,
    Shape,
    Shapes,
    arguments_of,
    encoded,
    packed,
    read_apart,
    read_peek,
    read_reply,
)
from mxweir.testing import question

FOLDER = Folder()
TEXT = """
[[limit]]
name = "sender"
key = "sender"
rate = "30/minute"
burst = 50
overrides = { "news@a.example" = "6000/minute", "root@a.example" = "unlimited" }

[[limit]]
name = "quota"
key = ["sender", "recipient"]
rate = "100/day"
window = true
mode = "observe"

[[limit]]
name = "fanout"
key = "client_network"
rate = "20/hour"
distinct = "recipient"

[[limit]]
name = "bytes"
key = "sasl_username"
rate = "20MB/hour"
unit = "byte"
"""


def shapes(text: str = TEXT) -> Shapes:
    return Shapes(Limits(loads(text).limit, FOLDER), "mx")


def numbers(told: bytes) -> list[float]:
    return [number for (number,) in iter_unpack("<d", told)]


def asked(facts: AnyFacts, by: Shapes | None = None) -> Question:
    found = (by or shapes()).question(facts)
    assert found is not None
    return found


def test_a_key_is_named_by_the_prefix_the_limit_and_what_it_counts():
    name = asked(question()).names[0]
    assert re.fullmatch(rb"mx:sender\.[0-9a-f]{6}:alice@a\.example", name)
    changed = shapes(TEXT.replace('rate = "30/minute"\nburst = 50', 'rate = "5/hour"'))
    assert asked(question(), changed).names[0] == name
    other = shapes(TEXT.replace("burst = 50", "window = true"))
    assert asked(question(), other).names[0] != name


def test_a_text_that_no_encoding_has_is_a_key_too():
    assert encoded("b\udcffb") == b"b\xffb"


def test_a_call_says_what_a_shape_shares_once_and_then_what_each_question_brings():
    by = shapes()
    two = [
        asked(question(client="192.0.2.7"), by),
        asked(question(client="192.0.2.8", recipient="r@b.example"), by),
    ]
    (shape,) = {one.shape for one in two}
    names, arguments = packed(two)
    assert [name.split(b".")[0] for name in names] == [b"mx:sender", b"mx:quota", b"mx:fanout"] * 2
    after, mode, told, *rest = arguments_of(shape, arguments, 77, CHARGE)
    assert (after, mode, *rest) == (b"77", b"0", b"bob@b.example", b"r@b.example")
    assert numbers(told) == [0, 3, *(0, 0.5, 50, 0), *(1, 100, 86400, 1), *(2, 20, 3600, 2)]


def test_a_limit_by_bytes_brings_its_cost():
    one = asked(question(state="END-OF-MESSAGE", size="12345", sasl_username="u", instance="i"))
    assert (one.arguments[1:], one.costs, one.keys) == ((b"12345",), (12345.0,), ("u",))


def test_a_key_with_a_rate_of_its_own_has_another_shape_and_an_unlimited_one_is_not_asked():
    by = shapes()
    usual, own, free = (asked(question(sender=f"{name}@a.example"), by) for name in ("x", "news", "root"))
    assert usual.shape is asked(question(sender="y@a.example"), by).shape
    assert own.shape is asked(question(sender="news@a.example"), by).shape
    assert own.shape.numbers != usual.shape.numbers
    assert len(free.names) == 2
    assert by.question(question(state="END-OF-MESSAGE", size="1")) is None


def test_questions_with_an_instance_are_known_again():
    by = shapes()
    first = asked(question(instance="1a.2b.3c"), by)
    assert first.shape.begin == (b"mx:seen",)
    assert numbers(first.shape.numbers)[0] == REPEATS_SECONDS
    mark, *_ = first.arguments
    assert len(mark) == 12
    assert first.repeat == b"mx:seen:" + mark
    assert asked(question(instance="1a.2b.3c"), by).arguments == first.arguments
    others = [
        question(instance="1a.2b.3d"),
        question(instance="1a.2b.3c", recipient="other@b.example"),
    ]
    assert len({first.repeat, *(asked(one, by).repeat for one in others)}) == 3
    assert asked(question(), by).repeat is None


def test_a_question_is_taken_apart_limit_by_limit():
    one = asked(question(instance="i"))
    parts = one.each()
    assert [part.names for part in parts] == [(name,) for name in one.names]
    assert [part.arguments for part in parts] == [(), (), (b"bob@b.example",)]
    assert [numbers(part.shape.numbers)[:2] for part in parts] == [[0, 1]] * 3


def test_shapes_are_bounded():
    own = ", ".join(f'"s{i}@a.example" = "{i + 1}/minute"' for i in range(300))
    by = shapes(f'[[limit]]\nname = "s"\nkey = "sender"\nrate = "1/day"\noverrides = {{ {own} }}\n')
    for i in range(300):
        assert asked(question(sender=f"s{i}@a.example"), by).shape.numbers.endswith(pack("<2d", i + 1, 0))
    assert len(by._shapes) <= 256


def shape() -> Shape:
    return asked(question(instance="i")).shape


def test_a_reply_says_the_time_and_who_has_no_room():
    assert read_reply([123], shape(), 4) == (123, False, [])
    said = read_reply([123, 2, 1, 50, 1_500_000, 4, 3, 20, 7], shape(), 4).said
    assert said == [Said(1, 0, 50, 1.5), Said(3, 2, 20, 7e-6)]
    assert read_reply([123, b"late"], shape(), 4).late


NONSENSE: list[Any] = [
    None,
    b"OK",
    17,
    [],
    [b"123"],
    [None],
    [123, 1],
    [123, 1, 2, 3, b"4"],
    [123, 1, 1, 1, None],
    [123, [1, 1, 1, 1]],
    [123, 0, 1, 5, 5],
    [123, 5, 1, 5, 5],
    [123, 1, 4, 5, 5],
    [123, 1, 0, 5, 5],
    [123, b"early"],
]


@pytest.mark.parametrize("reply", NONSENSE, ids=repr)
def test_what_the_script_cannot_have_said_is_refused(reply):
    with pytest.raises(ValueError, match=r"no reply of the script|not asked"):
        read_reply(reply, shape(), 4)


def test_other_replies_are_read_and_their_nonsense_is_refused():
    assert read_peek([123, 1, 5, 0, 6, 1_000_000, 0, 0], shape()) == (True, [(5, 0.0), (6, 1.0), (0, 0.0)])
    assert read_apart([123, 5, 2_000_000, 99]) == (123, False, 5, 2.0, 99)
    assert read_apart([123, b"late"]).late
    for reply in (*NONSENSE, [123], [123, 1, 2, 3, 4, 5]):
        with pytest.raises(ValueError, match="no reply of the script"):
            read_peek(reply, shape())
        with pytest.raises(ValueError, match="no reply of the script"):
            read_apart(reply)


def test_of_shapes_as_large_as_messages_make_them_few_are_remembered():
    by = shapes()
    limit = by._limits.limits[0]
    for number in range(1, 200):
        counters = (by.counter(limit, limit.paces.usual),) * number
        assert by.shape(counters, True) is by.shape(counters, True)
        assert sum(len(shape.counters) for shape in by._shapes.values()) <= 10_000


def test_a_shape_without_any_limit_has_room_for_questions_too() -> None:
    assert Shape(()).most > 1
