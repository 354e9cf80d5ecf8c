import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.fronts import replies
from mxweir_milter.fronts.codec import LARGEST
from mxweir_milter.fronts.options import Action, Options, Stage, Step

NO_NUL = st.binary(max_size=300).filter(lambda text: b"\0" not in text)


def packets(data):
    """Letter and data of each packet; the lengths must fit exactly."""
    found = []
    while data:
        length = int.from_bytes(data[:4])
        assert 0 < length <= len(data) - 4
        found.append((data[4:5], data[5 : 4 + length]))
        data = data[4 + length :]
    return found


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        ("CONTINUE", b"c"),
        ("ACCEPT", b"a"),
        ("REJECT", b"r"),
        ("TEMPFAIL", b"t"),
        ("DISCARD", b"d"),
        ("SKIP", b"s"),
        ("PROGRESS", b"p"),
        ("SHUTDOWN", b"4"),
    ],
)
def test_an_answer_without_data_is_its_letter(name, letter):
    assert packets(getattr(replies, name)) == [(letter, b"")]


def test_the_negotiation_is_answered_with_the_macros_that_are_wanted():
    options = Options(6, Action.ADD_HEADERS | Action.SET_SYMBOL_LIST, Step.SKIP)
    data = replies.negotiate(options, {Stage.MAIL: ("i", "{auth_authen}"), Stage.RCPT: ()})
    assert packets(data) == [
        (
            b"O",
            b"\0\0\0\6\0\0\1\1\0\0\4\0" + b"\0\0\0\2i {auth_authen}\0" + b"\0\0\0\3\0",
        )
    ]


@pytest.mark.parametrize(
    ("made", "letter", "data"),
    [
        (replies.add_header(b"X", b" y\n\tz"), b"h", b"X\0 y\n\tz\0"),
        (replies.insert_header(0, b"X", b"y"), b"i", b"\0\0\0\0X\0y\0"),
        (replies.change_header(2, b"X", b"y"), b"m", b"\0\0\0\2X\0y\0"),
        (replies.change_header(1, b"X", b""), b"m", b"\0\0\0\1X\0\0"),
        (replies.change_sender(b"<a@b>"), b"e", b"<a@b>\0"),
        (replies.change_sender(b"<a@b>", b"RET=HDRS"), b"e", b"<a@b>\0RET=HDRS\0"),
        (replies.add_recipient(b"<a@b>"), b"+", b"<a@b>\0"),
        (replies.add_recipient(b"<a@b>", b"NOTIFY=NEVER"), b"2", b"<a@b>\0NOTIFY=NEVER\0"),
        (replies.delete_recipient(b"<a@b>"), b"-", b"<a@b>\0"),
        (replies.quarantine("a reason"), b"q", b"a reason\0"),
        (replies.reply("550", "5.7.1", "No, 100% no"), b"y", b"550 5.7.1 No, 100%% no\0"),
    ],
)
def test_a_change_is_its_letter_and_its_texts(made, letter, data):
    assert packets(made) == [(letter, data)]


@given(st.binary(max_size=5).map(lambda seed: seed * 30_000))
def test_a_new_body_of_any_size_is_sent_in_packets_that_fit(body):
    made = b"".join(replies.replace_body(body))
    found = packets(made)
    assert {letter for letter, _ in found} == {b"b"}
    assert b"".join(piece for _, piece in found) == body
    assert all(len(piece) < LARGEST for _, piece in found)


@given(NO_NUL, NO_NUL, st.integers(0, 2**32 - 1))
def test_any_text_without_a_nul_comes_back_out(name, value, index):
    assert packets(replies.change_header(index, name, value)) == [
        (b"m", index.to_bytes(4) + name + b"\0" + value + b"\0")
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: replies.add_header(b"X\0Y", b"z"),
        lambda: replies.add_header(b"X", b"y\0z"),
        lambda: replies.quarantine("a\0b"),
        lambda: replies.add_header(b"X", b"y" * LARGEST),
        lambda: replies.reply("250", "2.0.0", "Ok"),
        lambda: replies.reply("550", "4.7.1", "text"),
        lambda: replies.reply("55", "5.7.1", "text"),
        lambda: replies.reply("55x", "5.7.1", "text"),
        lambda: replies.reply("550", "5.7.1", "two\r\nlines"),
        lambda: replies.reply("550", "5.7.1", "äöü"),
    ],
)
def test_what_the_mail_server_would_take_for_something_else_is_not_made(make):
    with pytest.raises(ValueError):  # noqa: PT011 -- each in its own words
        make()
