import time
from email import message_from_bytes, policy
from email.header import Header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.subject import tagged

TAG = "[SPAM]"


def shown(value: str) -> str:
    """What a mail program makes of a field's value."""
    raw = b"Subject: " + value.encode().replace(b"\n", b"\r\n") + b"\r\n\r\n"
    return str(message_from_bytes(raw, policy=policy.default)["Subject"])


@pytest.mark.parametrize(
    ("original", "value"),
    [
        (b" Buy now", "[SPAM] Buy now"),
        (b"Buy now", "[SPAM] Buy now"),
        (b"", "[SPAM]"),
        (b"  \t ", "[SPAM]"),
        (b"\n Buy now", "[SPAM] Buy now"),
        (b" Buy\n\tnow", "[SPAM] Buy\n\tnow"),
        (b" Buy\r\n now", "[SPAM] Buy\n now"),
        (b" =?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "[SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?="),
        (" Grüße".encode(), "[SPAM] Grüße"),
        (b" Re: [SPAM] Buy now", "[SPAM] Re: [SPAM] Buy now"),
        (b" Gr\xfc\xdfe an Bob", "[SPAM] =?unknown-8bit?B?R3L832U=?= an Bob"),
        (b" a\xfc b\xfc\n\tc \xfc", "[SPAM] =?unknown-8bit?B?YfwgYvw=?=\n\tc =?unknown-8bit?B?/A==?="),
        (b" a\x00b\rc\x7f", "[SPAM] a?b?c?"),
        (b" Buy\nBcc: everybody@example.org", "[SPAM] Buy\n\tBcc: everybody@example.org"),
        (b" =?broken?X?%%?=", "[SPAM] =?broken?X?%%?="),
        (b" =?utf-8?B?A?=", "[SPAM] =?utf-8?B?A?="),
        (" =?ü?Q?a?=".encode(), "[SPAM] =?ü?Q?a?="),
    ],
)
def test_the_tag_goes_before_what_stood_there(original, value):
    assert tagged(original, TAG) == value


@pytest.mark.parametrize(
    "original",
    [
        b" [SPAM] Buy now",
        b" [SPAM]",
        b" =?utf-8?Q?=5BSPAM=5D_Buy_now?=",
        b" =?utf-8?B?W1NQQU1dIEJ1eSBub3c=?=",
    ],
)
def test_a_subject_with_the_tag_is_left_alone_however_it_is_encoded(original):
    assert tagged(original, TAG) is None


def test_a_subject_that_would_not_fit_into_a_packet_is_left_alone():
    assert tagged(b"\xff" * 50_000, TAG) is None


def test_a_long_subject_is_folded_behind_the_tag():
    assert tagged(b" " + b"x" * 70, TAG) == "[SPAM]\n " + "x" * 70


@pytest.mark.parametrize("original", [b"a" * 60_000 + b" \xff", b"\xff" + b" " * 60_000, b"\xff a " * 15_000])
def test_a_subject_made_to_take_long_takes_no_longer_than_its_length(original):
    began = time.process_time()
    tagged(original, TAG)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("tag", ["[SPAM]", "[Müll]", "***"])
@pytest.mark.parametrize("text", ["Hello", "Grüße aus Köln", "日本語の件名" * 8, "Re: x =?y"])
@pytest.mark.parametrize("charset", ["utf-8", ""])
def test_a_mail_program_shows_tag_space_and_the_old_subject(tag, text, charset):
    original = Header(text, charset).encode().encode() if charset else text.encode()
    value = tagged(b" " + original, tag)
    assert value is not None
    assert shown(value) == f"{tag} {text}"


@given(st.binary(max_size=300), st.sampled_from(["[SPAM]", "[Müll]"]))
def test_whatever_stood_there_it_stays_one_field_that_any_front_can_send(original, tag):
    value = tagged(original, tag)
    if value is not None:
        assert all(line[:1] in ("\t", " ") for line in value.split("\n")[1:])
        assert value == value.encode().decode()
        assert not set(value) & ({chr(n) for n in range(32)} - {"\n", "\t"})


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=80))
def test_a_tag_is_put_once(text):
    once = tagged(text.encode(), TAG)
    assert once is None or tagged(once.encode(), TAG) is None
