import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.units import (
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("8s", 8.0),
        ("1.5s", 1.5),
        (" 10 m ", 600.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_read_as_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512KiB", 524288), ("20MB", 20_000_000), ("1.5GiB", 1_610_612_736), ("7B", 7), ("1 KB", 1000)],
)
def test_a_size_is_read_as_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0%", 0.0), ("100%", 1.0), ("12.5 %", 0.125)])
def test_a_share_is_read_as_a_part_of_one(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse_duration, "8"),
        (parse_duration, ""),
        (parse_duration, "8 S"),
        (parse_duration, "-8s"),
        (parse_duration, "8s 5ms"),
        (parse_duration, "1e3s"),
        (parse_duration, "8%"),
        (parse_duration, "\u0668s"),
        (parse_duration, "9" * 400 + "d"),
        (parse_size, "512"),
        (parse_size, "512kib"),
        (parse_size, "9" * 400 + "GB"),
        (parse_share, "20"),
        (parse_share, "100.1%"),
        (parse_share, "-1%"),
    ],
)
def test_what_is_no_such_quantity_is_told_with_what_would_be(read, text):
    with pytest.raises(ValueError, match=r"such as|at most 100%"):
        read(text)


@given(st.text() | st.from_regex(r"[0-9]{1,500}(\.[0-9]+)? ?[A-Za-z%]{0,3}"))
def test_whatever_is_read_is_a_finite_number_or_a_sentence(text):
    for read in (parse_duration, parse_size, parse_share):
        try:
            number = read(text)
        except ValueError:
            continue
        assert 0 <= number < float("inf")


@given(st.integers(0, 10**14))
def test_a_duration_that_is_written_reads_the_same(milliseconds):
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-9)


@given(st.integers(0, 10**17))
def test_a_size_that_is_written_reads_the_same(size):
    assert parse_size(format_size(size)) == pytest.approx(size, rel=1e-15)


@given(st.floats(0, 1))
def test_a_share_that_is_written_reads_the_same(share):
    assert parse_share(format_share(share)) == pytest.approx(share, abs=1e-11)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (format_duration(0.25), "250ms"),
        (format_duration(90), "90s"),
        (format_duration(86400), "1d"),
        (format_duration(0), "0ms"),
        (format_duration(1_234_567.5), "1234567500ms"),
        (format_size(524288), "512KiB"),
        (format_size(20_000_000), "20MB"),
        (format_size(0), "0B"),
        (format_share(0.2), "20%"),
        (format_share(0.00001), "0.001%"),
    ],
)
def test_a_quantity_is_written_as_an_operator_would(written, text):
    assert written == text
