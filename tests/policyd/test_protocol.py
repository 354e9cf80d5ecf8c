from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxweir_policyd import protocol
from mxweir_policyd.protocol import (
    MAX_ATTRIBUTES,
    MAX_REQUEST,
    ProtocolError,
    Request,
    RequestReader,
    format_reply,
    format_request,
    parse_request,
)

SENT_BY_3_7 = """\
request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=203.0.113.9
client_name=mail.sender.example
client_port=40123
reverse_client_name=mail.sender.example
server_address=192.0.2.25
server_port=25
helo_name=mail.sender.example
sender=bert@sender.example
recipient=anna@example.org
recipient_count=0
queue_id=4XyZ1234
instance=1a2b.65f0.0
size=12345
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=bert
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=limits
"""
"""Postfix 3.7's order; src/smtpd/smtpd_check.c, check_policy_service()."""

SENT = dict(line.split("=", 1) for line in SENT_BY_3_7.splitlines())
POSTFIX_3_7 = list(SENT)
POSTFIX_3_8 = [*POSTFIX_3_7, "compatibility_level", "mail_version"]
POSTFIX_3_12 = [*POSTFIX_3_8[:-3], "tls_sni", *POSTFIX_3_8[-3:]]
VERSIONS = [POSTFIX_3_7, POSTFIX_3_8, POSTFIX_3_12]

EXPECTED = Request(
    protocol_state=b"RCPT",
    client_address=b"203.0.113.9",
    helo_name=b"mail.sender.example",
    sender=b"bert@sender.example",
    recipient=b"anna@example.org",
    queue_id=b"4XyZ1234",
    instance=b"1a2b.65f0.0",
    size=b"12345",
    sasl_username=b"bert",
    policy_context=b"limits",
)


def request(order: list[str], **values: bytes) -> bytes:
    """A request with these attributes in this order."""
    known = {name: text.encode() for name, text in SENT.items()} | values
    return b"".join(b"%s=%s\n" % (name.encode(), known.get(name, b"")) for name in order) + b"\n"


USUAL = request(POSTFIX_3_7)
OTHER = request(POSTFIX_3_8, sender=b"carol@other.example", instance=b"2.2.2.0")
PADDING = b"padding=%s\n" % (b"x" * (MAX_REQUEST - len(USUAL) - len("padding=\n")))
SAMPLES = {
    "Postfix 3.7": (USUAL, {}),
    "Postfix 3.8": (request(POSTFIX_3_8), {}),
    "Postfix 3.12": (request(POSTFIX_3_12, tls_sni=b"mx.example.org"), {}),
    "backwards": (request(POSTFIX_3_12[::-1]), {}),
    "attributes that nobody knows": (b"future=1\n" + request([*POSTFIX_3_7, "also_future"]), {}),
    "nothing but what it is": (
        b"request=smtpd_access_policy\n\n",
        dict.fromkeys(Request._fields, b""),
    ),
    "null sender at the end of the message": (
        request(POSTFIX_3_7, sender=b"", protocol_state=b"END-OF-MESSAGE"),
        {"sender": b"", "protocol_state": b"END-OF-MESSAGE"},
    ),
    "equals signs in a value": (
        request(POSTFIX_3_7, sender=b"prvs=1234=bert@sender.example"),
        {"sender": b"prvs=1234=bert@sender.example"},
    ),
    "spaces and control characters": (
        request(POSTFIX_3_7, sender=b" q s\r\x1b@sender.example "),
        {"sender": b" q s\r\x1b@sender.example "},
    ),
    "UTF-8": (
        request(POSTFIX_3_7, sender="bärt@bücher.example".encode()),
        {"sender": "bärt@bücher.example".encode()},
    ),
    "invalid UTF-8": (
        request(POSTFIX_3_7, sender=b"\xff\xfe\x80@sender.example"),
        {"sender": b"\xff\xfe\x80@sender.example"},
    ),
    "a value longer than any that Postfix sends": (
        request(POSTFIX_3_7, sender=b"b" * 3000),
        {"sender": b"b" * 3000},
    ),
    "the largest there may be": (PADDING + USUAL, {}),
    "as many attributes as there may be": (
        b"".join(b"a%d=\n" % number for number in range(MAX_ATTRIBUTES - len(POSTFIX_3_7))) + USUAL,
        {},
    ),
}


def feed(*chunks: bytes) -> list[Request]:
    """Feed these chunks to one reader; all requests that come out."""
    reader = RequestReader()
    return [Request(*found) for chunk in chunks for found in reader.feed(chunk)]


def feed_bytewise(data: bytes) -> list[Request]:
    return feed(*(data[at : at + 1] for at in range(len(data))))


@pytest.fixture(params=SAMPLES.values(), ids=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> tuple[bytes, Request]:
    data, values = request.param
    return data, EXPECTED._replace(**values)


def test_a_request_that_comes_whole_is_read(sample: tuple[bytes, Request]) -> None:
    data, expected = sample
    assert feed(data) == [expected]


def test_a_request_that_comes_byte_by_byte_is_read_the_same(sample: tuple[bytes, Request]) -> None:
    data, expected = sample
    assert feed_bytewise(data) == [expected]


def test_a_request_with_the_beginning_of_the_next_behind_it_is_read_the_same(
    sample: tuple[bytes, Request],
) -> None:
    data, expected = sample
    other = EXPECTED._replace(sender=b"carol@other.example", instance=b"2.2.2.0")
    for length in (1, 9, len(OTHER) - 1, len(OTHER)):
        first, *rest = feed(data + OTHER[:length], OTHER[length:])
        assert first == expected
        assert rest == [other]


def test_a_reader_says_whether_a_request_has_begun_and_not_ended() -> None:
    reader = RequestReader()
    said = [reader.pending]
    for chunk in (USUAL[:-1], USUAL[-1:], USUAL + OTHER[:1]):
        reader.feed(chunk)
        said.append(reader.pending)
    assert said == [False, True, False, True]


value = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"").replace(b"\0", b""))
values = st.dictionaries(st.sampled_from(POSTFIX_3_12[1:]), value)
requests = st.builds(lambda order, given: request(order, **given), st.sampled_from(VERSIONS), values)


@given(st.lists(requests, max_size=4), st.data())
def test_however_a_stream_is_split_the_requests_are_equal(stream: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(edges)]
    assert feed(*chunks) == feed_bytewise(whole) == [feed(one)[0] for one in stream]


@given(st.sampled_from(VERSIONS), values)
def test_the_expression_for_postfixs_order_and_the_general_parser_agree(
    order: list[str], given: dict[str, bytes]
) -> None:
    data = request(order, **given)
    match = protocol._in_order(data)
    assert match is not None
    assert Request._make(match.groups()) == parse_request(data[:-1])


def test_what_the_expression_matches_is_never_too_large() -> None:
    values = dict.fromkeys(POSTFIX_3_12[1:], b"v" * 2000)
    largest = request(POSTFIX_3_12, **values)
    assert protocol._in_order(largest)
    assert len(largest) <= MAX_REQUEST
    assert not protocol._in_order(request(POSTFIX_3_12, **values | {"sender": b"v" * 2001}))


@given(st.permutations(POSTFIX_3_12), values)
def test_the_order_of_the_attributes_means_nothing(order: list[str], given: dict[str, bytes]) -> None:
    assert feed(request(order, **given)) == feed(request(POSTFIX_3_12, **given))


LINES = st.sampled_from(
    [b"\n", b"\n\n", b"=", b"request=smtpd_access_policy\n", b"sender=", b"\0", USUAL, OTHER]
)


@given(st.lists(st.binary(max_size=30) | LINES, max_size=12))
@example([b"\n"])
@example([USUAL, b"\n"])
@example([USUAL[:-1], b"\n\n\n"])
def test_whatever_comes_in_nothing_but_a_protocol_error_goes_out(chunks: list[bytes]) -> None:
    with suppress(ProtocolError):
        feed(*chunks)
    with suppress(ProtocolError):
        feed_bytewise(b"".join(chunks))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"x" + PADDING + USUAL, "request too large"),
        (b"x" * 10_000_000, "request too large"),
        (request(POSTFIX_3_7, sender=b"x" * MAX_REQUEST), "request too large"),
        (b"a=\n" * (MAX_ATTRIBUTES - len(POSTFIX_3_7) + 1) + USUAL, "too many attributes"),
        (b"".join(b"a%d=b\n" % number for number in range(5_000)) + USUAL, "too many attributes"),
        (b"".join(b"a%d=b\n" % number for number in range(10_000)) + USUAL, "request too large"),
        (request(POSTFIX_3_7, sender=b"a\0b"), "NUL in request"),
        (request(POSTFIX_3_7, client_name=b"a\0b"), "NUL in request"),
        (request(POSTFIX_3_7[::-1], sender=b"a\0b"), "NUL in request"),
        (b"request=smtpd_access_policy\nno value\n\n", "line without name=value"),
        (b"request=smtpd_access_policy\n=value\n\n", "line without name=value"),
        (b"GET / HTTP/1.1\r\n\n", "line without name=value"),
        (b"sender=a@b.example\n\n", "not request=smtpd_access_policy"),
        (b"request=junk\n\n", "not request=smtpd_access_policy"),
        (b"\n", "empty request"),
        (USUAL + b"\n", "empty request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("size", [65_536, 7], ids=["in chunks of 64 KiB", "in chunks of 7 bytes"])
def test_what_is_no_request_is_refused_with_its_reason(data: bytes, what: str, size: int) -> None:
    with pytest.raises(ProtocolError, match=f"^{what}$"):
        feed(*(data[at : at + size] for at in range(0, min(len(data), 200_000), size)))


def test_a_reader_never_holds_much_more_than_the_largest_request() -> None:
    reader = RequestReader()
    reader.feed(b"x" * MAX_REQUEST)
    with pytest.raises(ProtocolError):
        reader.feed(b"x")


@given(st.text() | st.text(alphabet="\n\r\0\x1b\x7f\x85\u2028\u202e\udcff ab"))
def test_a_reply_is_one_line_of_printable_text_or_none_at_all(action: str) -> None:
    try:
        reply = format_reply(action)
    except ValueError:
        return
    assert reply.startswith(b"action=")
    assert reply.endswith(b"\n\n")
    assert reply.count(b"\n") == 2
    assert reply.decode().rstrip("\n").isprintable()


def test_an_empty_action_is_never_sent() -> None:
    with pytest.raises(ValueError, match="not a line of printable text"):
        format_reply("")


@given(st.dictionaries(st.sampled_from(Request._fields), value))
def test_a_request_that_we_write_is_the_one_that_we_read(given: dict[str, bytes]) -> None:
    text = {name: raw.decode("utf-8", "surrogateescape") for name, raw in given.items()}
    assert feed(format_request(text)) == [Request(**given)]
