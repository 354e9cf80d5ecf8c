from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxweir_policyd.socketmap import (
    MAX_REQUEST,
    Lookup,
    LookupReader,
    SocketmapError,
    format_answer,
)


def netstring(content: bytes) -> bytes:
    return b"%d:%s," % (len(content), content)


def feed(*chunks: bytes) -> list[Lookup]:
    """Feed these chunks to one reader; all lookups that come out."""
    reader = LookupReader()
    return [found for chunk in chunks for found in reader.feed(chunk)]


def feed_bytewise(data: bytes) -> list[Lookup]:
    return feed(*(data[at : at + 1] for at in range(len(data))))


LARGEST = b"transport " + b"x" * (MAX_REQUEST - len("transport "))
SAMPLES = {
    "a domain": (b"relay-domains example.org", Lookup("relay-domains", "example.org")),
    "a key with spaces": (b"transport a b@example.org", Lookup("transport", "a b@example.org")),
    "an empty key": (b"transport ", Lookup("transport", "")),
    "no table": (b" example.org", Lookup("", "example.org")),
    "UTF-8": ("transport bücher.example".encode(), Lookup("transport", "bücher.example")),
    "invalid UTF-8": (b"transport \xff.example", Lookup("transport", "\\xff.example")),
    "commas, colons, newlines": (b"transport 9:a,\n,:", Lookup("transport", "9:a,\n,:")),
    "the largest": (LARGEST, Lookup("transport", LARGEST.decode().split()[1])),
}
OTHER = netstring(b"transport other.example")


@pytest.fixture(params=SAMPLES.values(), ids=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> tuple[bytes, Lookup]:
    content, lookup = request.param
    return netstring(content), lookup


def test_a_lookup_that_comes_whole_is_read(sample: tuple[bytes, Lookup]) -> None:
    data, expected = sample
    assert feed(data) == [expected]


def test_a_lookup_that_comes_byte_by_byte_is_read_the_same(sample: tuple[bytes, Lookup]) -> None:
    data, expected = sample
    assert feed_bytewise(data) == [expected]


@pytest.mark.parametrize("length", [1, 2, 3, len(OTHER) - 1, len(OTHER)])
def test_a_lookup_with_the_beginning_of_the_next_behind_it_is_read_the_same(
    sample: tuple[bytes, Lookup], length: int
) -> None:
    data, expected = sample
    assert feed(data + OTHER[:length], OTHER[length:]) == [expected, Lookup("transport", "other.example")]


contents = st.builds(
    lambda table, key: table + b" " + key, st.sampled_from([b"t", b"transport"]), st.binary()
)


@given(st.lists(contents.map(netstring), max_size=5), st.data())
def test_however_a_stream_is_split_the_lookups_are_equal(stream: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    assert feed(*chunks) == feed_bytewise(whole) == [feed(one)[0] for one in stream]


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"5:", b",", b"00", b"9", OTHER]), max_size=10))
@example([b"5:a b,"])
@example([b"0:,"])
def test_whatever_comes_in_nothing_but_a_socketmap_error_goes_out(chunks: list[bytes]) -> None:
    with suppress(SocketmapError):
        feed(*chunks)
    with suppress(SocketmapError):
        feed_bytewise(b"".join(chunks))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"x", "not a netstring"),
        (b":", "not a netstring"),
        (b"-1:", "not a netstring"),
        (b"5 :", "not a netstring"),
        (b"123456", "not a netstring"),
        (b"0" * 10_000_000, "not a netstring"),
        (b"GET / HTTP/1.1\r\n", "not a netstring"),
        (b"3:a bX", "not a netstring"),
        (b"4097:", "request too large"),
        (b"99999:", "request too large"),
        (b"3:abc,", "request without a key"),
        (b"0:,", "request without a key"),
        ("٣:a b,".encode(), "not a netstring"),
    ],
    ids=lambda value: repr(value[:20]),
)
@pytest.mark.parametrize("size", [65_536, 1], ids=["in large chunks", "byte by byte"])
def test_what_is_no_lookup_is_refused_with_its_reason(data: bytes, what: str, size: int) -> None:
    with pytest.raises(SocketmapError, match=f"^{what}$"):
        feed(*(data[at : at + size] for at in range(0, min(len(data), 200_000), size)))


@given(st.sampled_from(["OK", "NOTFOUND", "TEMP", "PERM"]), st.text(alphabet=st.characters(codec="utf-8")))
def test_an_answer_is_one_netstring_of_status_and_data(status: str, data: str) -> None:
    length, _, rest = format_answer(status, data).partition(b":")
    assert rest[-1:] == b","
    assert rest[:-1].decode() == f"{status} {data}"
    assert int(length) == len(rest) - 1
