from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.domains.record import FROM_COMMAND, FROM_FILE, Record
from mxweir_policyd.relaydomains.sources.file import BadLine, DomainList, read_domains


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source") / "domains"


def read(path: Path, content: bytes) -> DomainList:
    path.write_bytes(content)
    return read_domains(path, FROM_FILE)


def test_domains_next_hops_and_comments_are_read(path: Path) -> None:
    found = read(
        path,
        b"# ours\nexample.org\n\n.example.com   # and below\nexample.net\tsmtp:[192.0.2.25]\r\nlast.example",
    )
    assert found.bad == []
    assert list(found.records.values()) == [
        Record("example.org", origins=FROM_FILE),
        Record("example.com", include_subdomains=True, origins=FROM_FILE),
        Record("example.net", "smtp:[192.0.2.25]", origins=FROM_FILE),
        Record("last.example", origins=FROM_FILE),
    ]


def test_records_carry_the_origin_that_was_asked_for(path: Path) -> None:
    path.write_text("example.org\n")
    assert read_domains(path, FROM_COMMAND).records["example.org"].origins == FROM_COMMAND


def test_every_bad_line_is_told_by_its_number_and_the_good_ones_are_kept(path: Path) -> None:
    found = read(path, b"example.org\nnot a domain!\n\xff\xfe\n# comment\n-bad.example\nexample.net\n")
    assert [(line.number, line.what) for line in found.bad] == [
        (2, "more than a domain and a next hop"),
        (3, "not valid UTF-8"),
        (5, "'-bad.example' is no domain name: '-bad' begins or ends with a hyphen"),
    ]
    assert list(found.records) == ["example.org", "example.net"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_byte_order_mark_at_the_beginning_means_nothing(path: Path, newline: bytes) -> None:
    for first in (b"example.org", b".example.org", b"example.org smtp:x", b"# comment"):
        found = read(path, b"\xef\xbb\xbf" + first + newline + b"example.net" + newline)
        assert found == read(path, first + newline + b"example.net" + newline)
        assert found.bad == []


@pytest.mark.parametrize("length", [16 * 1024 - 1, 16 * 1024, 20_000, 200_000])
def test_a_line_that_is_far_too_long_is_one_bad_line_and_the_next_one_is_read(
    path: Path, length: int
) -> None:
    found = read(path, b"example.org\n" + b"x" * length + b"\nexample.net\n")
    assert [line.number for line in found.bad] == [2]
    assert len(found.bad[0].what) < 200
    assert list(found.records) == ["example.org", "example.net"]


def test_a_line_that_is_far_too_long_at_the_end_of_the_file_is_one_bad_line(path: Path) -> None:
    found = read(path, b"example.org\n" + b"x" * 40_000)
    assert found.bad == [BadLine(2, "longer than 16 KiB")]


def test_a_long_comment_within_the_bound_is_a_comment(path: Path) -> None:
    assert read(path, b"#" + b"x" * 16_000 + b"\nexample.org\n").bad == []


def test_a_domain_that_stands_twice_counts_as_it_stood_last(path: Path) -> None:
    found = read(path, b"example.org one:\nEXAMPLE.org two:\n")
    assert [record.next_hop for record in found.records.values()] == ["two:"]


def test_an_empty_file_holds_nothing(path: Path) -> None:
    assert read(path, b"") == DomainList({}, [])


def test_a_file_that_is_not_there_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_domains(path.with_name("missing"), FROM_FILE)


@given(content=st.binary(max_size=300))
def test_whatever_a_file_holds_each_line_is_a_domain_a_comment_or_told(path: Path, content: bytes) -> None:
    found = read(path, content)
    lines = content.split(b"\n")
    assert all(1 <= bad.number <= len(lines) for bad in found.bad)
    assert len(found.records) + len(found.bad) <= len(lines)
    assert all(bad.what.isprintable() for bad in found.bad)


@pytest.mark.parametrize("lines", [b".example.org\nexample.org\n", b"example.org\n.example.org\n"])
def test_a_domain_that_stands_with_its_subdomains_and_without_stands_with_them(
    path: Path, lines: bytes
) -> None:
    assert [record.line() for record in read(path, lines).records.values()] == [".example.org"]
