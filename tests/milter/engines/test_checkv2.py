import contextlib
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.engines.checkv2 import LARGEST_RESPONSE, Check, read_answer
from mxweir_milter.engines.error import EngineError
from mxweir_milter.facts import Client, Envelope, Tls
from mxweir_milter.message import Message
from mxweir_milter.testing import CLIENT, ENVELOPE, message
from mxweir_milter.verdict import Reason, Scored

# As Rspamd 3.4 sent them, shortened.
ANSWER = {
    "is_skipped": False,
    "score": 8.0,
    "required_score": 15.0,
    "action": "add header",
    "symbols": {
        "RCVD_COUNT_ZERO": {"name": "RCVD_COUNT_ZERO", "score": 0.0, "options": ["0"]},
        "MISSING_FROM": {"name": "MISSING_FROM", "score": 2.0},
        "MISSING_MID": {"name": "MISSING_MID", "score": 2.5, "description": "Message id is missing"},
        "FRIEND": {"name": "FRIEND", "score": -3.0},
    },
    "messages": {},
    "message-id": "undef",
    "time_real": 0.053048,
}
GTUBE = {
    "is_skipped": True,
    "score": 15.0,
    "required_score": 15.0,
    "action": "reject",
    "symbols": {"GTUBE": {"name": "GTUBE", "score": 0.0, "metric_score": 0.0}},
    "messages": {"smtp_message": "Gtube pattern"},
}
SYMBOLS = ("FRIEND", "MISSING_MID", "MISSING_FROM", "RCVD_COUNT_ZERO")
RESULT = Scored(8.0, 15.0, SYMBOLS, "rspamd", "add header")

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nServer: rspamd/3.4\r\n"
BODY = json.dumps(ANSWER).encode()
WITH_LENGTH = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
IN_CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
UNTIL_CLOSED = HEAD + b"\r\n" + BODY


def check(asked=None):
    return Check(asked or message(), "", "rspamd")


def read(*pieces, to=None):
    """What a check makes of pieces and then the end."""
    made = to or check()
    for piece in pieces:
        if (result := made.feed(piece)) is not None:
            return result
    return made.end()


def trouble(*pieces):
    with pytest.raises(EngineError) as caught:
        read(*pieces)
    return caught.value.reason, str(caught.value)


def answered(**changed):
    return read_answer(json.dumps(ANSWER | changed).encode(), "rspamd")


def headers(asked, password=""):
    head, content = Check(asked, password, "rspamd").request
    assert content == asked.content
    first, *lines = head.decode("utf-8", "surrogateescape").removesuffix("\r\n\r\n").split("\r\n")
    assert first == "POST /checkv2 HTTP/1.1"
    return [tuple(line.split(": ", 1)) for line in lines]


# The request


def test_a_request_tells_what_rspamds_own_milter_would_tell():
    client = Client("mail.sender.example", "203.0.113.9", "helo.example", "mx.example.org", TLS)
    envelope = Envelope("a@sender.example", ("b@example.org", "c@example.org"), 2, "anna", "4XyZ1")
    asked = Message(client, envelope, b"Subject: x\r\n\r\ny\r\n", 0.0)
    assert headers(asked) == [
        ("Host", "rspamd"),
        ("Connection", "close"),
        ("Flags", "milter"),
        ("IP", "203.0.113.9"),
        ("Hostname", "mail.sender.example"),
        ("Helo", "helo.example"),
        ("From", "<a@sender.example>"),
        ("User", "anna"),
        ("Queue-Id", "4XyZ1"),
        ("MTA-Name", "mx.example.org"),
        ("TLS-Version", "TLSv1.3"),
        ("TLS-Cipher", "TLS_AES_256_GCM_SHA384"),
        ("Rcpt", "<b@example.org>"),
        ("Rcpt", "<c@example.org>"),
        ("Content-Length", "17"),
    ]


TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "256")


def test_what_is_not_known_is_not_told_and_the_null_sender_is():
    asked = Message(Client(), Envelope("", ("b@example.org",), 1), b"\r\n", 0.0)
    assert [name for name, _ in headers(asked)] == [
        "Host",
        "Connection",
        "Flags",
        "From",
        "Rcpt",
        "Content-Length",
    ]
    assert ("From", "<>") in headers(asked)


def test_the_password_is_sent_and_stands_in_no_text_about_the_check():
    made = Check(message(), "hunter2", "rspamd")
    assert ("Password", "hunter2") in headers(message(), "hunter2")
    with pytest.raises(EngineError) as caught:
        read(
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 24\r\n\r\n" + b'{"error":"Unauthorized"}', to=made
        )
    assert "401 Unauthorized" in str(caught.value)
    assert "hunter2" not in f"{caught.value!r}{made!r}"


@given(st.text(max_size=3000), st.text(max_size=300), st.lists(st.text(max_size=400), max_size=4))
def test_whatever_a_client_says_stays_within_its_line(helo, sender, recipients):
    client = CLIENT._replace(helo=helo.encode("utf-8", "replace").decode())
    envelope = ENVELOPE._replace(
        sender=sender.encode("utf-8", "replace").decode(),
        recipients=tuple(r.encode("utf-8", "replace").decode() for r in recipients),
    )
    told = headers(Message(client, envelope, b"\r\n", 0.0))
    names = [name for name, _ in told]
    assert names.count("Rcpt") == len(recipients)
    assert [name for name in names if name not in KNOWN] == []


KNOWN = {"Host", "Connection", "Flags", "IP", "Hostname", "Helo", "From", "Queue-Id", "MTA-Name", "Rcpt"} | {
    "Content-Length"
}


def test_bytes_that_are_no_utf8_arrive_as_they_were():
    client = CLIENT._replace(helo="m\udcfcnchen")
    head = Check(Message(client, ENVELOPE, b"\r\n", 0.0), "", "rspamd").request[0]
    assert b"\r\nHelo: m\xfcnchen\r\n" in head


def test_a_thousand_long_recipients_stay_below_what_rspamd_reads_as_headers():
    recipients = tuple(f"{'x' * 240}{number}@example.org" for number in range(1000))
    envelope = ENVELOPE._replace(recipients=recipients)
    asked = Message(CLIENT, envelope, b"\r\n", 0.0)
    assert 150 < [name for name, _ in headers(asked)].count("Rcpt") < 1000
    assert len(Check(asked, "", "rspamd").request[0]) < 80 * 1024


# The answer


@pytest.mark.parametrize("answer", [WITH_LENGTH, IN_CHUNKS, UNTIL_CLOSED], ids=["length", "chunks", "close"])
def test_an_answer_is_read_whole_byte_by_byte_and_with_more_behind_it(answer):
    assert read(answer) == RESULT
    assert read(*[bytes([byte]) for byte in answer]) == RESULT
    if answer != UNTIL_CLOSED:
        assert read(answer + b"HTTP/1.1 400 Bad Request\r\n") == RESULT


def test_the_result_is_there_before_the_connection_is_closed():
    assert check().feed(WITH_LENGTH) == RESULT
    assert check().feed(UNTIL_CLOSED) is None


def test_an_interim_answer_is_passed_over():
    assert read(b"HTTP/1.1 100 Continue\r\n\r\n" + WITH_LENGTH) == RESULT


@pytest.mark.parametrize(
    ("answer", "reason", "text"),
    [
        (b"", Reason.BROKE_OFF, "closed without an answer"),
        (HEAD, Reason.BAD_ANSWER, ""),
        (WITH_LENGTH[:-10], Reason.BAD_ANSWER, ""),
        (b"SPAMD/1.1 76 Bad header line\r\n\r\n", Reason.BAD_ANSWER, "illegal status line"),
        (bytes(range(256)) * 16, Reason.BAD_ANSWER, ""),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", Reason.BAD_ANSWER, "Rspamd says 503 Busy"),
        (b"HTTP/1.1 404 Not found\r\nContent-Length: 0\r\n\r\n", Reason.BAD_ANSWER, "404 Not found"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", Reason.BAD_ANSWER, ""),
    ],
)
def test_an_answer_that_is_none_is_an_error(answer, reason, text):
    told = trouble(answer) if answer else trouble()
    assert told[0] is reason
    assert text in told[1]


def test_an_endless_answer_is_cut_off():
    pieces = [b"X" * 65536] * (LARGEST_RESPONSE // 65536 + 1)
    assert trouble(HEAD + b"\r\n", *pieces) == (Reason.BAD_ANSWER, f"more than {LARGEST_RESPONSE} bytes")


def test_endless_headers_are_cut_off():
    assert trouble(HEAD, *[b"X: y\r\n"] * 10_000)[0] is Reason.BAD_ANSWER


BAD = [
    ({"score": None}, "None in place of a number"),
    ({"score": "8"}, "'8' in place of a number"),
    ({"score": True}, "True in place of a number"),
    ({"score": float("nan")}, "NaN is no number"),
    ({"required_score": float("inf")}, "Infinity is no number"),
    ({"score": 1e12}, "no usable score"),
    ({"score": 10**400}, ""),
    ({"action": 7}, "action 7"),
    ({"action": ""}, "action ''"),
    ({"action": "re\nject"}, "action"),
    ({"is_skipped": "no"}, "wrong type"),
    ({"symbols": ["A"]}, "wrong type"),
    ({"error": "out of memory"}, "no result"),
]


@pytest.mark.parametrize(("changed", "text"), BAD)
def test_an_answer_that_cannot_be_relied_on_is_an_error(changed, text):
    with pytest.raises(EngineError) as caught:
        answered(**changed)
    assert caught.value.reason is Reason.BAD_ANSWER
    assert text in str(caught.value)


@pytest.mark.parametrize("missing", ["score", "required_score", "action", "is_skipped", "symbols"])
def test_an_answer_that_lacks_something_is_an_error_that_names_it(missing):
    rest = {name: value for name, value in ANSWER.items() if name != missing}
    with pytest.raises(EngineError, match=f"'{missing}' is missing"):
        read_answer(json.dumps(rest).encode(), "rspamd")


@pytest.mark.parametrize("body", [b"", b"[]", b"8.0", b"{", b"[" * 100_000, b'{"score":"\xff"}'])
def test_a_body_that_is_no_object_is_an_error(body):
    with pytest.raises(EngineError):
        read_answer(body, "rspamd")


def test_symbols_come_the_weightiest_first_and_those_without_a_score_last():
    symbols = {"B": {"score": 1}, "A": {"score": "x"}, "C": {"score": -2}, "D": 7}
    assert answered(symbols=symbols).symbols == ("C", "B", "A", "D")


def test_bytes_that_are_no_utf8_cost_no_verdict():
    body = json.dumps(ANSWER | {"subject": "M?nchen", "score": 3.5}).encode().replace(b"M?", b"M\xfc")
    assert read_answer(body, "rspamd").score == 3.5


# What Rspamd's actions mean


@pytest.mark.parametrize(
    ("action", "score", "counts_as"),
    [
        ("reject", 20.0, 20.0),
        ("reject", 0.1, 15.0),
        ("discard", 0.1, 15.0),
        ("quarantine", 0.1, 15.0),
        ("no action", 3.0, 3.0),
        ("no action", 15.0, 0.0),
        ("greylist", 4.5, 4.5),
        ("add header", 6.5, 6.5),
        ("rewrite subject", 7.0, 7.0),
        ("soft reject", 4.5, 4.5),
        ("an action of the site's own", 4.5, 4.5),
    ],
)
def test_an_action_taken_in_spite_of_the_score_counts_as_the_score_it_stands_for(action, score, counts_as):
    result = answered(action=action, score=score)
    assert (result.score, result.action) == (counts_as, action)


def test_a_message_that_rspamd_is_set_to_skip_has_no_score():
    with pytest.raises(EngineError) as caught:
        answered(is_skipped=True, action="no action", score=0.0)
    assert caught.value.reason is Reason.ENGINE_SKIPPED


def test_a_message_whose_verdict_was_plain_before_it_was_scanned_has_one():
    assert read_answer(json.dumps(GTUBE).encode(), "rspamd") == Scored(
        15.0, 15.0, ("GTUBE",), "rspamd", "reject"
    )


# Any bytes


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_give_a_result_or_an_engine_error(data, cuts):
    places = [0, *sorted(cuts), len(data)]
    with contextlib.suppress(EngineError):
        assert isinstance(read(*[data[a:b] for a, b in pairwise(places)]), Scored)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ANSWER, "error", "x"]), JSON, max_size=6), st.booleans())
def test_any_object_gives_a_result_or_an_engine_error(changed, complete):
    body = json.dumps((ANSWER if complete else {}) | changed).encode()
    with contextlib.suppress(EngineError):
        assert isinstance(read_answer(body, "rspamd"), Scored)


@given(
    st.sampled_from([WITH_LENGTH, IN_CHUNKS, UNTIL_CLOSED]),
    st.lists(st.integers(0, len(IN_CHUNKS)), max_size=8),
)
def test_where_an_answer_is_cut_makes_no_difference(answer, cuts):
    places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    # A piece without a byte is what only the end looks like.
    pieces = [answer[a:b] for a, b in pairwise(places) if a < b]
    assert read(*pieces) == RESULT
