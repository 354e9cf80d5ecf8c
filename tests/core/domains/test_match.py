import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxweir.domains.match import PARENTS, Match, State, digest, find, parents
from mxweir.domains.names import parse_line, valid_domain
from mxweir.domains.record import FROM_COMMAND, FROM_FILE, FROM_POSTGRES, Record, said, unsaid


def table(*records: Record) -> dict[bytes, bytes]:
    return {digest(record.domain): record.encode() for record in records}


def ours(domain: str, *records: Record) -> bool:
    return find(domain, table(*records).get).state is State.OURS


labels = st.text(alphabet="abcxyz0189-_", min_size=1, max_size=12).map(lambda text: f"x{text}x")
domains = st.lists(labels, min_size=2, max_size=6).map(".".join)
hops = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=60)
origins = st.sampled_from([1, 2, 3])
records = st.builds(Record, domains, hops, st.booleans(), origins, st.just(True), st.just(""))


@given(records)
def test_a_record_comes_back_from_its_stored_form(record: Record) -> None:
    assert Record.decode(record.encode()) == record


views = records.map(lambda record: record._replace(origins=FROM_FILE))


@given(views, records)
def test_what_each_origin_says_of_a_domain_is_kept_apart(file: Record, other: Record) -> None:
    command = other._replace(domain=file.domain, origins=FROM_COMMAND)
    for raw in (said(file.encode(), command), said(command.encode(), file)):
        assert Record.decode(raw, FROM_FILE) == file
        assert Record.decode(raw, FROM_COMMAND) == command
        assert Record.decode(raw) == Record(
            file.domain,
            command.next_hop or file.next_hop,
            command.include_subdomains or file.include_subdomains,
            FROM_FILE | FROM_COMMAND,
        )
        assert unsaid(raw, FROM_COMMAND) == file.encode()
        assert unsaid(raw, FROM_FILE) == command.encode()


@given(records, views)
def test_what_an_origin_says_replaces_what_it_said_before(record: Record, file: Record) -> None:
    raw = said(record.encode(), file._replace(domain=record.domain))
    assert Record.decode(raw, FROM_FILE) == file._replace(domain=record.domain)


@given(views)
def test_nothing_is_left_when_the_only_origin_takes_its_word_back(record: Record) -> None:
    assert said(None, record) == record.encode()
    assert unsaid(record.encode(), FROM_FILE) is None
    assert Record.decode(record.encode(), FROM_COMMAND) == Record(record.domain, origins=0)


@given(records)
def test_a_record_comes_back_from_its_line_in_a_domains_file(record: Record) -> None:
    assert parse_line(record.line(), record.origins) == record


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ("example.org", Record("example.org")),
        ("  Example.ORG.  ", Record("example.org")),
        (".example.org", Record("example.org", include_subdomains=True)),
        ("example.org smtp:[192.0.2.25]", Record("example.org", "smtp:[192.0.2.25]")),
        (
            ".example.org\tsmtp:mx.example.net:2525 # why",
            Record("example.org", "smtp:mx.example.net:2525", True),
        ),
        ("example.org# why", Record("example.org")),
        ("bücher.example", Record("xn--bcher-kva.example")),
        ("BÜCHER.example", Record("xn--bcher-kva.example")),
        (".bücher.example", Record("xn--bcher-kva.example", include_subdomains=True)),
        ("XN--BCHER-KVA.example", Record("xn--bcher-kva.example")),
        ("_dmarc.under_score.example", Record("_dmarc.under_score.example")),
        (f"{'a' * 63}.example", Record(f"{'a' * 63}.example")),
    ],
)
def test_a_good_line_is_read(line: str, record: Record) -> None:
    assert parse_line(line, FROM_COMMAND) == record


@pytest.mark.parametrize("line", ["", "   ", "# a comment", "\t# example.org", "\n"])
def test_empty_lines_and_comments_hold_nothing(line: str) -> None:
    assert parse_line(line, FROM_FILE) is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("example.org smtp:x y", "more than a domain and a next hop"),
        ("example.org smtp:ü", "the next hop is not printable ASCII of at most 255 characters"),
        (f"example.org {'x' * 256}", "the next hop is not printable ASCII of at most 255 characters"),
        ("localhost", "'localhost' has no dot; a relay domain has at least two labels"),
        (".", "'' is no domain name: there is nothing between two dots"),
        ("..example.org", "'.example.org' is no domain name: there is nothing between two dots"),
        ("a..example.org", "'a..example.org' is no domain name: there is nothing between two dots"),
        ("-bad.example", "'-bad.example' is no domain name: '-bad' begins or ends with a hyphen"),
        ("bad-.example", "'bad-.example' is no domain name: 'bad-' begins or ends with a hyphen"),
        (
            f"{'a' * 64}.example",
            f"'{'a' * 64}.example' is no domain name: a label has more than 63 characters",
        ),
        (
            "anna@example.org",
            "'anna@example.org' is no domain name: '@' is no letter, digit, - or _",
        ),
        (
            "not!a.domain",
            "'not!a.domain' is no domain name: '!' is no letter, digit, - or _",
        ),
        (
            "exa\0mple.org",
            "'exa\\x00mple.org' is no domain name: '\\x00' is no letter, digit, - or _",
        ),
        ("192.0.2.1", "'192.0.2.1' is an address, not a domain"),
        (
            "[192.0.2.1]",
            "'[192.0.2.1]' is no domain name: '[' is no letter, digit, - or _",
        ),
        (
            "*.example.org",
            "'*.example.org' is no domain name: '*' is no letter, digit, - or _",
        ),
        (
            "a.b☃.example",
            (
                "'a.b☃.example' is no international domain name (IDNA 2008): "
                "Codepoint U+2603 at position 2 of 'b☃' not allowed"
            ),
        ),
    ],
)
def test_a_bad_line_is_refused_with_what_is_wrong(line: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(what)}$"):
        parse_line(line, FROM_FILE)


def test_a_name_that_is_too_long_is_shown_shortened() -> None:
    with pytest.raises(ValueError, match="is longer than 253 characters") as error:
        valid_domain("a.b" * 90)
    assert len(str(error.value)) < 150


@given(st.text(max_size=80))
@example("\ud800.example")
@example("xn--.example")
@example("xn--\u0660.example")
def test_whatever_a_line_holds_it_is_read_or_refused_with_a_sentence(line: str) -> None:
    with contextlib.suppress(ValueError):
        record = parse_line(line, FROM_FILE)
        assert record is None or valid_domain(record.domain) == record.domain


def test_a_domain_is_found_by_its_own_record() -> None:
    record = Record("example.org", "smtp:[192.0.2.25]", False, FROM_FILE)
    match = find("example.org", table(record).get)
    assert match == Match(State.OURS, record.encode())
    assert (match.by, match.next_hop) == ("example.org", "smtp:[192.0.2.25]")


def test_a_domain_below_one_that_includes_its_subdomains_is_found_by_it() -> None:
    match = find("a.b.example.org", table(Record("example.org", "hop:", True)).get)
    assert (match.state, match.by, match.next_hop) == (State.OURS, "example.org", "hop:")


def test_a_domain_below_one_that_does_not_include_its_subdomains_is_not_ours() -> None:
    assert not ours("a.example.org", Record("example.org"))


def test_a_domain_above_or_beside_one_of_ours_is_not_ours() -> None:
    record = Record("example.org", include_subdomains=True)
    for domain in ("org", "xample.org", "xexample.org", "example.org.example", "", "."):
        assert not ours(domain, record)


def test_the_nearest_parent_answers_and_a_plain_one_in_between_does_not_stop_the_search() -> None:
    records = Record("example.org", "far:", True), Record("b.example.org", "near:", True)
    assert find("a.b.example.org", table(*records).get).next_hop == "near:"
    plain = Record("example.org", "far:", True), Record("b.example.org")
    assert find("a.b.example.org", table(*plain).get).next_hop == "far:"


@pytest.mark.parametrize("wide", [FROM_FILE, FROM_COMMAND])
def test_subdomains_are_ours_if_any_origin_includes_them(wide: int) -> None:
    narrow = FROM_FILE + FROM_COMMAND - wide
    raw = said(Record("one.example", "", True, wide).encode(), Record("one.example", origins=narrow))
    assert find("sub.one.example", {digest("one.example"): raw}.get).state is State.OURS


@given(st.integers(1, 20), domains)
def test_parents_are_looked_up_as_many_labels_up_as_documented_and_no_more(depth: int, domain: str) -> None:
    below = ".".join(["x"] * depth + [domain])
    assert ours(below, Record(domain, include_subdomains=True)) == (depth <= PARENTS)


@given(st.text(max_size=300))
def test_looking_up_asks_a_bounded_number_of_times_whatever_the_name(domain: str) -> None:
    asked: list[bytes] = []

    def get(key: bytes) -> bytes | None:
        asked.append(key)
        return None

    assert find(domain, get).state is State.NOT_OURS
    assert len(asked) <= 1 + PARENTS
    assert {len(key) for key in asked} == {32}


def test_no_match_has_no_record() -> None:
    match = find("foreign.example", table().get)
    assert (match.state, match.by, match.next_hop) == (State.NOT_OURS, "", "")


truths = st.builds(Record, domains, hops, st.booleans(), st.just(FROM_POSTGRES), st.booleans(), hops)


@given(truths)
def test_a_record_of_postgresql_comes_back_with_its_tenant_and_whether_it_is_enabled(record: Record) -> None:
    assert Record.decode(record.encode()) == record


def test_a_domain_that_is_switched_off_is_not_ours_and_what_it_includes_neither() -> None:
    off = Record("sub.example.org", "", True, FROM_POSTGRES, False, "t")
    wide = Record("example.org", "", True, FROM_POSTGRES)
    for domain in ("sub.example.org", "a.b.sub.example.org"):
        match = find(domain, table(off, wide).get)
        assert (match.state, match.by, match.tenant) == (State.NOT_OURS, "sub.example.org", "t")
    plain = off._replace(include_subdomains=False)
    assert find("a.sub.example.org", table(plain, wide).get).by == "example.org"


def test_a_name_of_one_label_is_never_looked_up_for_what_is_below_it() -> None:
    assert list(parents("a.b.example.org")) == ["b.example.org", "example.org"]
    assert list(parents("example.org")) == list(parents("org")) == list(parents("")) == []
