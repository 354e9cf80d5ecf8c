import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter import authors
from mxweir_milter.authors import MANY, MOST, Field

LONGEST = 16_300
"""Bytes of one field's value that are looked at, but for what a test puts behind."""


def addresses(*values: bytes) -> list[bytes]:
    field = Field()
    for value in values:
        field.add(value)
    return list(field.addresses())


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b" Anna <anna@a.example>, b@b.example", [b"anna@a.example", b"b@b.example"]),
        (b' "ceo@bank.example" <x@y.example>', [b"x@y.example"]),
        (b" Team: a@a.example, b@b.example;, c@c.example", [b"a@a.example", b"b@b.example", b"c@c.example"]),
        (b" undisclosed-recipients:;", []),
        (b" a@a.example (or c@c.example (or \\) d@d.example))", [b"a@a.example"]),
        (b" (was: <c@c.example>) Anna <a@a.example>", [b"a@a.example"]),
        (b' (") a@a.example, "x" <b@b.example>', [b"a@a.example", b"b@b.example"]),
        (b" <@relay.example,@other.example:a@a.example>", [b"a@a.example"]),
        (b' "quoted local"@a.example', [b"quoted local@a.example"]),
        (b' <"q \\"s\\" @ x"@a.example>', [b'q "s" @ x@a.example']),
        (b" =?utf-8?q?a=40b,_c?= <a@a.example>", [b"a@a.example"]),
        (b" M\xfcller <m@b\xc3\xbccher.example>", [b"m@b\xc3\xbccher.example"]),
        (b" Anna\n\t<anna@\r\n a.example>", [b"anna@a.example"]),
        (b" a@[192.0.2.1], b@[IPv6:2001:db8::1]", [b"a@[192.0.2.1]", b"b@[IPv6:2001:db8::1]"]),
        (b" a@b@c.example", [b"a@b@c.example"]),
        (b" a@a.example.", [b"a@a.example"]),
        (b" <>", []),
        (b" root", []),
        (b" @a.example, a@, @", []),
        (b"", []),
    ],
)
def test_the_addresses_of_a_list_are_those_of_rfc_5322(value, found):
    assert addresses(value) == found


@pytest.mark.parametrize(
    "value",
    [
        b"const@evil.example",
        b"Some Name const@evil.example",
        b"'const@evil.example'",
        b'"const@evil.example"',
        b'"never closed const@evil.example',
        b"(never closed const@evil.example",
        b"<const@evil.example",
        b"const@evil.example>",
        b"mailto:const@evil.example",
        b"<const@evil.example@>",
        b"<const@evil.example.@.>",
        b"const@evil.example@",
        b"<const@evil.example\x01>",
        b"<co\x08nst@evil.\x00example\x7f>",
        b"const @ evil.example",
        b"<<const@evil.example>>",
        b",,const@evil.example;;",
        b'"a" "b" <const@evil.example> (c) "d"',
    ],
)
def test_an_address_that_is_written_badly_is_found_all_the_same(value):
    assert addresses(value) == [b"const@evil.example"]


def test_all_fields_of_a_name_are_one_list_and_an_address_counts_once():
    assert addresses(b"a@x.example", b"b@x.example, a@x.example") == [b"a@x.example", b"b@x.example"]


def test_eight_different_addresses_count_each_and_more_of_them_as_one_for_all():
    several = [b"a%d@x.example" % number for number in range(MOST)]
    assert addresses(b", ".join(several * 3)) == several
    assert addresses(b", ".join([*several, b"b@x.example"])) == [MANY]
    assert addresses(*several, b"b@x.example") == [MANY]


HOSTILE = [
    *(
        b'"',
        b'"\\"',
        b"(",
        b")",
        b"((a",
        b"<",
        b"[",
        b"[a",
        b",",
        b";",
        b":",
        b"@",
        b"a@",
        b" ",
        b" @",
        b"@ ",
    ),
    *(
        b"x",
        b"\\",
        b"a@b,",
        b"a ",
        b". ",
        b"\xff",
        b'"a\\',
        b":a@b",
        b"\x01",
        b'""',
        b'a"',
        b"<@,",
        b"<a",
        b"\n ",
    ),
    *(b"<@a:", b'"<', b"(\\)", b"[:", b"'@'"),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_however_a_field_of_full_length_is_made_each_byte_is_matched_a_few_times_at_most(piece, monkeypatch):
    """Counted, not timed: what the expressions look at is the sum of what they match, and bounded."""
    matched = []

    class Counted:
        def __init__(self, expression: "re.Pattern[bytes]") -> None:
            self._expression = expression

        def match(self, value: bytes, at: int) -> "re.Match[bytes] | None":
            found = self._expression.match(value, at)
            matched.append(len(found[0]) if found else 0)
            return found

    for name in ("_PIECE", "_COMMENT_PIECE"):
        monkeypatch.setattr(authors, name, Counted(getattr(authors, name)))
    for value in ((piece * LONGEST)[:LONGEST], (piece * LONGEST)[:LONGEST] + b" const@evil.example"):
        matched.clear()
        addresses(value)
        assert sum(matched) <= len(value)
        assert len(matched) <= 4097


def test_more_than_16_kib_of_fields_are_not_kept():
    field = Field()
    for _ in range(100):
        field.add(b"a@x.example" + b" " * 1000)
    assert field.addresses() == (MANY,)
    assert sum(map(len, field._values)) <= 16_384


@pytest.mark.parametrize("value", [b"", b"a", b"ab", b"a@x.example"])
def test_more_than_a_hundred_fields_are_not_kept_and_are_one_for_all(value):
    field = Field()
    for _ in range(101):
        field.add(value)
    assert len(field._values) == 100
    assert field.addresses() == (MANY,)


@given(st.lists(st.one_of(st.binary(max_size=60), st.text('"\\()<>,;:[]@. ab', max_size=60).map(str.encode))))
def test_whatever_the_fields_hold_there_are_few_addresses_each_with_an_at_and_nothing_raises(values):
    found = addresses(*values)
    assert found == [MANY] or len(found) <= MOST
    assert all(address == MANY or 0 < address.rindex(b"@") < len(address) - 1 for address in found)
    assert len(set(found)) == len(found)


WORD = st.text("abcdefgh", min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(WORD, WORD, st.sampled_from(["%s", "<%s>", "Name <%s>", '"a@b" <%s>', "%s (c@d)"])),
        max_size=8,
    )
)
def test_well_formed_lists_give_exactly_their_addresses(parts):
    wanted = [f"{local}@{domain}.example" for local, domain, _ in parts]
    value = ", ".join(form % address for address, (_, _, form) in zip(wanted, parts, strict=True))
    assert addresses(value.encode()) == [each.encode() for each in dict.fromkeys(wanted)]
