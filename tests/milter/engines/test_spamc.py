import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.engines.error import EngineError
from mxweir_milter.engines.spamc import LARGEST_RESPONSE, ResponseReader, symbols_request
from mxweir_milter.verdict import Reason, Scored

# As spamd 4.0.1 sent them.
GTUBE = (
    b"SPAMD/1.1 0 EX_OK\r\nContent-length: 24\r\nSpam: True ; 1004.2 / 5.0\r\n\r\n"
    b"GTUBE,NO_RECEIVED,TVD_SP\r\n"
)
HAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -1.5 / 5.0\r\n\r\n"
UNTIL_CLOSED = b"SPAMD/1.5 0 EX_OK\nSpam: Yes ; 7.0 / 5.0\n\nA_RULE,B_RULE\n"

RESULTS = {
    GTUBE: Scored(1004.2, 5.0, ("GTUBE", "NO_RECEIVED", "TVD_SP"), "spamd"),
    HAM: Scored(-1.5, 5.0, (), "spamd"),
    UNTIL_CLOSED: Scored(7.0, 5.0, ("A_RULE", "B_RULE"), "spamd"),
}


def read(*pieces):
    """What a reader makes of pieces and then the end."""
    reader = ResponseReader("spamd")
    for piece in pieces:
        if (result := reader.feed(piece)) is not None:
            return result
    return reader.end()


def trouble(*pieces):
    """Reason and text of the error that a reader raises."""
    with pytest.raises(EngineError) as caught:
        read(*pieces)
    return caught.value.reason, str(caught.value)


def test_a_request_gives_the_messages_length_in_bytes():
    request = b"".join(symbols_request(b"A: b\r\n", b"\r\nx\r\n"))
    assert request == b"SYMBOLS SPAMC/1.5\r\nContent-length: 11\r\n\r\nA: b\r\n\r\nx\r\n"


@pytest.mark.parametrize("response", RESULTS)
def test_a_response_is_read_whole(response):
    assert read(response) == RESULTS[response]


@pytest.mark.parametrize("response", RESULTS)
def test_a_response_is_read_byte_by_byte(response):
    assert read(*[bytes([byte]) for byte in response]) == RESULTS[response]


def test_what_follows_the_announced_length_is_of_no_interest():
    assert read(GTUBE + b"HTTP/1.1 400 Bad Request\r\n" * 10) == RESULTS[GTUBE]


def test_the_result_is_there_before_the_connection_is_closed():
    assert ResponseReader("spamd").feed(HAM) == RESULTS[HAM]
    assert ResponseReader("spamd").feed(UNTIL_CLOSED) is None


@pytest.mark.parametrize(
    ("response", "reason", "text"),
    [
        (b"", Reason.BROKE_OFF, "closed without an answer"),
        (b"SPAMD/1.1 0 EX_OK\r\n", Reason.BAD_ANSWER, "closed within the headers"),
        (b"HTTP/1.1 200 OK\r\n\r\n", Reason.BAD_ANSWER, "no status line of spamd"),
        (b"SPAMD/1.1 75 EX_TEMPFAIL\r\n\r\n", Reason.BAD_ANSWER, "spamd says 75 EX_TEMPFAIL"),
        (b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n", Reason.BAD_ANSWER, "no score"),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n", Reason.BAD_ANSWER, "no score"),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; inf / 5.0\r\n\r\n", Reason.BAD_ANSWER, "no score"),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1_0 / 5.0\r\n\r\n", Reason.BAD_ANSWER, "no score"),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: Maybe ; 1.0 / 5.0\r\n\r\n", Reason.BAD_ANSWER, "no score"),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 99999999 / 5.0\r\n\r\n", Reason.BAD_ANSWER, "no usable score"),
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: -1\r\nSpam: True ; 1 / 5\r\n\r\n",
            Reason.BAD_ANSWER,
            "Content-length",
        ),
        (GTUBE[:-10], Reason.BAD_ANSWER, "closed after 16 of 24 bytes"),
    ],
)
def test_a_response_that_cannot_be_relied_on_is_an_error(response, reason, text):
    assert trouble(response)[0] is reason
    assert text in trouble(response)[1]


def test_an_endless_response_is_cut_off():
    head = b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.0 / 5.0\r\n\r\n"
    pieces = [b"X" * 1000] * (LARGEST_RESPONSE // 1000 + 1)
    assert trouble(head, *pieces) == (Reason.BAD_ANSWER, f"more than {LARGEST_RESPONSE} bytes")


def test_endless_headers_are_cut_off():
    assert "headers of more than" in trouble(b"SPAMD/1.1 0 EX_OK\r\n", *[b"X: y\r\n"] * 10_000)[1]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_give_a_result_or_an_engine_error(data, cuts):
    places = [0, *sorted(cuts), len(data)]
    with contextlib.suppress(EngineError):
        assert isinstance(read(*[data[a:b] for a, b in pairwise(places)]), Scored)


@given(st.sampled_from(list(RESULTS)), st.lists(st.integers(0, 120), max_size=8))
def test_where_a_response_is_cut_makes_no_difference(response, cuts):
    places = [0, *sorted(min(cut, len(response)) for cut in cuts), len(response)]
    pieces = [response[a:b] for a, b in pairwise(places)]
    assert read(*pieces) == RESULTS[response]


@given(
    st.floats(-1e5, 1e5).map(lambda x: round(x, 1)),
    st.lists(st.from_regex(r"[A-Z][A-Z0-9_]{0,30}", fullmatch=True), max_size=50),
)
def test_every_score_and_symbol_comes_through(points, symbols):
    body = ",".join(symbols).encode()
    head = f"SPAMD/1.1 0 EX_OK\r\nContent-length: {len(body)}\r\nSpam: False ; {points:.1f} / 5.0\r\n\r\n"
    assert read(head.encode() + body + b"\r\n") == Scored(points, 5.0, tuple(symbols), "spamd")
