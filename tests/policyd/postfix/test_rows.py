"""What stands in Postfix's tables."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxweir.domains.match import Match, State
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_policyd.postfix.rows import Rows, domain_of, keys_of, rows_of, spellings, wanted

HOP = "smtp:[192.0.2.25]"


@pytest.mark.parametrize(
    ("record", "relay", "transport"),
    [
        (Record("example.org"), ["example.org"], []),
        (Record("example.org", HOP), ["example.org"], ["example.org"]),
        (Record("example.org", "", True), ["example.org", ".example.org"], []),
        (Record("example.org", HOP, True), ["example.org", ".example.org"], ["example.org", ".example.org"]),
        (
            Record("xn--bcher-kva.example", HOP, True),
            ["xn--bcher-kva.example", "bücher.example", ".xn--bcher-kva.example", ".bücher.example"],
            ["xn--bcher-kva.example", "bücher.example", ".xn--bcher-kva.example", ".bücher.example"],
        ),
        (Record("off.example", HOP, True, FROM_POSTGRES, enabled=False), [], []),
    ],
)
def test_a_record_has_these_rows(record: Record, relay: list[str], transport: list[str]) -> None:
    rows = rows_of(record)
    assert rows == Rows(dict.fromkeys(relay, "OK"), dict.fromkeys(transport, HOP))
    assert set(rows.relay) <= set(keys_of(record.domain))


@pytest.mark.parametrize(
    ("name", "hop"),
    [
        ("other.example x", ""),
        ("a.example OK\nother.example", ""),
        (" a.example", ""),
        ("#a.example", ""),
        ("A.example", ""),
        ("bücher.example", ""),
        ("example", ""),
        ("", ""),
        ("a.example", "smtp:[192.0.2.1]\nother.example smtp:[192.0.2.66]"),
        ("a.example", "smtp: [192.0.2.1]"),
    ],
)
def test_what_a_view_has_in_no_form_of_ours_has_no_rows_for_they_could_be_those_of_another(
    name: str, hop: str
) -> None:
    record = Record(name, hop, True, FROM_POSTGRES)
    assert rows_of(record) == wanted(name, Match(State.OURS, record.encode())) == Rows({}, {})


def test_a_name_that_postfix_would_fold_into_another_stands_there_in_a_labels_only() -> None:
    assert "straße".casefold() == "strasse"
    assert spellings("xn--strae-oqa.example") == ["xn--strae-oqa.example"]


@pytest.mark.parametrize("name", ["xn--.example", "xn--a.example", "xn--zzzzzzz999.example", "a.xn--example"])
def test_what_only_looks_like_an_international_name_stands_there_as_it_is(name: str) -> None:
    assert spellings(name)[0] == name
    assert all(domain_of(key) == name for key in keys_of(name))


def test_a_domain_that_a_parent_answers_for_has_no_rows_of_its_own() -> None:
    parent = Match(State.OURS, Record("example.org", HOP, True).encode())
    assert wanted("sub.example.org", parent) == Rows({}, {})
    assert wanted("example.org", parent) == rows_of(Record("example.org", HOP, True))


@pytest.mark.parametrize("state", [state for state in State if state is not State.OURS])
def test_a_domain_that_is_not_ours_has_no_rows(state: State) -> None:
    assert wanted("example.org", Match(state)) == Rows({}, {})


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
unicode_labels = st.text(st.characters(categories=["Ll", "Lo"]), min_size=1, max_size=6)


@given(st.lists(labels | unicode_labels, min_size=2, max_size=4).map(".".join))
@example("a.µא")  # in no form of ours
def test_each_key_of_a_domain_is_a_key_of_that_domain_alone(name: str) -> None:
    domain = domain_of(name)
    assert {domain_of(key) for key in keys_of(domain)} == {domain}
    assert all(key.casefold() == key for key in rows_of(Record(domain)).relay)
