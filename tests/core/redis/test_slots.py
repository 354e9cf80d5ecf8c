import pytest

from mxweir.endpoint import Inet
from mxweir.redis.errors import RedisError
from mxweir.redis.slots import Range, Redirect, ranges_of, redirect_of, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 0x31C3),  # the specification's own example of its CRC16
        ("foo", 12182),
        (b"foo", 12182),
        ("{user1000}.following", slot_of("user1000")),
        ("foo{}{bar}", slot_of("foo" + chr(123) + chr(125) + "{bar}")),
        ("foo{{bar}}zap", slot_of("{bar")),
        ("foo{bar}{zap}", slot_of("bar")),
        ("foo{bar", slot_of(b"foo{bar")),
        ("", 0),
    ],
)
def test_a_key_is_in_the_slot_of_its_hash_tag_or_else_of_all_of_it(key, slot):
    assert slot_of(key) == slot


def test_an_empty_tag_counts_as_none():
    assert slot_of("foo{}{bar}") not in (slot_of(""), slot_of("bar"))


def test_the_map_names_the_master_first_and_a_node_without_a_name_is_the_one_asked():
    reply = [
        [0, 5460, [b"127.0.0.1", 7000, b"id", []], [b"127.0.0.1", 7003, b"id"]],
        [5461, 16383, [None, 7001, b"id"], [b"?", 7004], [b"", 7005]],
    ]
    assert ranges_of(reply, "asked") == [
        Range(0, 5460, (Inet("127.0.0.1", 7000), Inet("127.0.0.1", 7003))),
        Range(5461, 16383, (Inet("asked", 7001), Inet("asked", 7004), Inet("asked", 7005))),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        7,
        None,
        [7],
        [[]],
        [[0, 1]],
        [[1, 0, [b"h", 1]]],
        [[0, 16384, [b"h", 1]]],
        [[-1, 5, [b"h", 1]]],
        [[b"0", 5, [b"h", 1]]],
        [[0, 5, [b"h"]]],
        [[0, 5, [b"h", 0]]],
        [[0, 5, [b"\xff", 1]]],
        [[0, 5, [7, 1]]],
    ],
)
def test_what_is_no_map_is_nonsense(reply):
    with pytest.raises(RedisError, match="nonsense"):
        ranges_of(reply, "asked")


def test_a_node_that_knows_no_slots_is_of_no_use():
    with pytest.raises(RedisError, match="down: it knows no slots"):
        ranges_of([], "asked")


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect(True, 3999, Inet("127.0.0.1", 6381))),
        ("ASK 3999 2001:db8::1:6381", Redirect(False, 3999, Inet("2001:db8::1", 6381))),
        ("MOVED 3999 :6381", Redirect(True, 3999, Inet("asked", 6381))),
        ("MOVED 16384 127.0.0.1:6381", None),
        ("MOVED x 127.0.0.1:6381", None),
        ("MOVED 1 127.0.0.1:0", None),
        ("MOVED 1 127.0.0.1", None),
        ("MOVED", None),
        ("ERR MOVED 1 127.0.0.1:1", None),
    ],
)
def test_a_redirection_says_where_a_slot_is_now_or_this_once(text, redirect):
    assert redirect_of(text, "asked") == redirect
