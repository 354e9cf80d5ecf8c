import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.endpoint import Inet, Unix, parse


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("inet:127.0.0.1:10040", Inet("127.0.0.1", 10040)),
        ("inet:localhost:1", Inet("localhost", 1)),
        ("inet:[::1]:65535", Inet("::1", 65535)),
        ("unix:/run/mxweir/policy", Unix("/run/mxweir/policy")),
        ("unix:/with:colon", Unix("/with:colon")),
    ],
)
def test_an_address_is_read_and_written_as_postfix_has_it(text, endpoint):
    assert parse(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1:10040", "is not an address such as"),
        ("tcp:127.0.0.1:10040", "is not an address such as"),
        ("inet:127.0.0.1", "is not an address such as"),
        ("inet::10040", "is not an address such as"),
        ("inet:127.0.0.1:policy", "is not an address such as"),
        ("inet:127.0.0.1:\u0661", "is not an address such as"),
        ("inet:127.0.0.1:-1", "is not an address such as"),
        ("", "is not an address such as"),
        ("inet:127.0.0.1:0", "a port lies between 1 and 65535"),
        ("inet:127.0.0.1:65536", "a port lies between 1 and 65535"),
        ("inet:::1:10040", "in brackets"),
        ("unix:run/policy", "needs an absolute path"),
        ("unix:", "needs an absolute path"),
        ("unix:/run/\0", "needs an absolute path"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
        ("unix:/" + "\xe9" * 54, "at most 107 bytes"),
    ],
)
def test_what_is_no_address_is_told_with_what_would_be(text, why):
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_a_path_may_be_as_long_as_a_socket_takes():
    assert parse("unix:/" + "x" * 106) == Unix("/" + "x" * 106)


@given(st.text() | st.from_regex(r"(inet|unix):[\[\]0-9a-f:./]{0,30}:?[0-9]{0,7}"))
def test_whatever_is_read_is_written_the_same_or_a_sentence(text):
    try:
        endpoint = parse(text)
    except ValueError:
        return
    assert parse(str(endpoint)) == endpoint
