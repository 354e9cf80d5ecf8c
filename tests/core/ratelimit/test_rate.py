import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.ratelimit.rate import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "count", "period"),
    [
        ("100/second", 100, 1),
        ("600/minute", 600, 60),
        ("50/hour", 50, 3600),
        ("500/day", 500, 86400),
        ("2/week", 2, 604800),
        ("3/10 minutes", 3, 600),
        (" 3 / 10minutes ", 3, 600),
        ("1/366 days", 1, 366 * 86400),
        ("20MB/hour", 20_000_000, 3600),
        ("512 KiB/2 hours", 524288, 7200),
        ("1000000000000/second", 10**12, 1),
    ],
)
def test_a_rate_is_a_count_in_a_period_of_seconds(text, count, period):
    rate = parse_rate(text)
    assert (rate.count, rate.period) == (count, period)
    assert rate.per_second == count / period


def test_a_rate_written_as_a_size_is_known_as_one():
    assert parse_rate("20MB/hour").in_bytes
    assert not parse_rate("20/hour").in_bytes
    assert parse_rate("20MB/hour") == Rate(20_000_000, 3600.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "100/",
        "/second",
        "100/s",
        "100/fortnight",
        "100/Second",
        "-1/second",
        "1.5/second",
        "0/second",
        "0MB/second",
        "1000000000001/second",
        "1/0 days",
        "1/367 days",
        "1/1.5 days",
        "20mb/hour",
        "9" * 5000 + "/day",
        "1/" + "9" * 5000 + " days",
        "\u0661/second",
    ],
)
def test_what_is_no_rate_is_told_with_what_would_be(text):
    with pytest.raises(ValueError, match=r"is not a|a rate counts from 1 to"):
        parse_rate(text)


@given(
    st.integers(1, 10**12), st.integers(1, 366), st.sampled_from(["second", "minute", "hour", "day", "week"])
)
def test_a_rate_that_is_written_reads_the_same(count, times, period):
    rate = parse_rate(f"{count}/{times} {period}s")
    assert parse_rate(str(rate)) == rate


def test_a_rate_is_written_in_the_largest_period_that_fits():
    assert str(Rate(600, 60.0)) == "600/minute"
    assert str(Rate(3, 600.0)) == "3/10 minutes"
    assert str(parse_rate("5/14 days")) == "5/2 weeks"
