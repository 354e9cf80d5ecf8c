from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter import message
from mxweir_milter.room import Room

PIECES = st.lists(st.binary(max_size=60), max_size=8)
VALUES = st.binary(max_size=60).filter(lambda value: b"\0" not in value)


def Content(limit, room=None):  # noqa: N802 -- with room enough, where a test says nothing else
    return message.Content(limit, room or Room(10**9))


def assembled(headers=(), body=()):
    content = Content(10**6)
    for name, value in headers:
        content.add_header(name, value)
    for piece in body:
        content.add_body(piece)
    return content.together()


def test_header_and_body_stand_as_the_client_sent_them():
    headers = [(b"Subject", b" hello\n world"), (b"X-None", b"no space")]
    assert assembled(headers, [b"one\r\n", b"two\r\n"]) == (
        b"Subject: hello\r\n world\r\nX-None:no space\r\n\r\none\r\ntwo\r\n"
    )


def test_a_message_without_a_final_line_end_gets_one():
    assert assembled([(b"A", b" b")], [b"no end"]).endswith(b"no end\r\n")


def test_a_lone_carriage_return_at_the_end_is_no_line_end():
    assert assembled([], [b"x\r"]) == b"\r\nx\r\r\n"


def test_a_message_without_a_body_ends_with_the_empty_line():
    assert assembled([(b"A", b" b")]) == b"A: b\r\n\r\n"


def test_a_field_that_comes_after_the_body_began_stands_in_the_header():
    content = Content(1000)
    content.add_header(b"A", b" a")
    content.add_body(b"one\r\n")
    content.add_header(b"B", b" b")
    content.add_body(b"two\r\n")
    assert content.together() == b"A: a\r\nB: b\r\n\r\none\r\ntwo\r\n"


@given(PIECES)
def test_where_the_body_is_cut_makes_no_difference(pieces):
    assert assembled([], pieces) == assembled([], [b"".join(pieces)])


@given(PIECES)
def test_every_message_ends_in_a_line_end_and_is_else_what_came(pieces):
    whole, came = assembled([], pieces), b"\r\n" + b"".join(pieces)
    assert whole.endswith(b"\r\n")
    assert whole in (came, came + b"\r\n")


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), VALUES), max_size=8))
def test_no_line_of_a_header_ends_in_a_line_feed_alone(headers):
    whole = assembled(headers)
    assert whole.count(b"\n") == whole.count(b"\r\n")


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), VALUES), max_size=8))
def test_whatever_a_value_holds_it_stays_one_field(headers):
    head, _, _ = assembled([(b"First", b""), *headers], [b"body"]).partition(b"\r\n\r\n")
    starts = [line for line in head.split(b"\r\n") if line and line[:1] not in (b" ", b"\t")]
    assert len(starts) == 1 + len(headers)


def test_a_message_of_exactly_the_limit_is_kept():
    content = Content(10)
    assert content.add_body(b"0123456789")
    assert not content.too_large


def test_above_the_limit_nothing_more_is_wanted_or_kept():
    content = Content(10)
    assert not content.add_body(b"0123456789a")
    assert not content.add_body(b"b")
    assert content.too_large
    assert content.size == 12
    assert content._kept == b""


def test_headers_alone_can_be_too_large():
    content = Content(100)
    for _ in range(10):
        content.add_header(b"Name", b" twenty bytes of text")
    assert content.too_large


def test_a_message_that_finds_no_room_is_let_go_and_uses_none():
    room = Room(100)
    assert room.take(80)
    content = Content(20, room)
    assert content.add_body(b"0123456789")
    other = Content(20, room)
    assert not other.add_body(b"a")
    assert not other.add_body(b"b")
    assert (other.no_room, other.too_large, other.size) == (True, False, 2)
    assert content.add_body(b"0123456789")
    assert room.used == 100


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 400), st.integers(1, 400))
def test_room_is_given_back_to_the_last_byte_whatever_became_of_the_message(pieces, limit, most):
    room = Room(most)
    content = Content(limit, room)
    for piece in pieces:
        content.add_body(piece)
        assert room.used <= most
        content.add_header(b"Name", piece)
    content.release()
    content.release()
    assert room.used == 0


def test_what_is_put_together_is_not_kept_twice():
    content = Content(1000)
    content.add_header(b"A", b" b")
    content.add_body(b"text\r\n")
    assert content.together() == b"A: b\r\n\r\ntext\r\n"
    assert content._kept == b""
