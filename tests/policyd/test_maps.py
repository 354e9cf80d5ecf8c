from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.domains.record import FROM_COMMAND, Record
from mxweir_policyd.maps import answer
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.socketmap import Lookup


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica = Replica(tmp_path_factory.mktemp("maps"))
    replica.add(
        [
            Record("example.org"),
            Record("example.net", "smtp:[192.0.2.25]"),
            Record("tree.example", "smtp:mx.example.com:2525", include_subdomains=True),
            Record("own.tree.example"),
            Record("wide.tree.example", "", True),
            Record("below.example.net"),
            Record("xn--bcher-kva.example"),
        ],
        FROM_COMMAND,
    )
    yield replica
    replica.close()


def ask(table: Replica, name: str, key: str) -> str:
    """The content of the answer's netstring."""
    found = answer(Lookup(name, key), table)
    assert isinstance(found, bytes)
    return found.decode().partition(":")[2].removesuffix(",")


@pytest.mark.parametrize(
    ("key", "relay", "transport"),
    [
        ("example.org", "OK example.org", "NOTFOUND "),
        ("Example.ORG.", "OK example.org", "NOTFOUND "),
        ("example.net", "OK example.net", "OK smtp:[192.0.2.25]"),
        ("tree.example", "OK tree.example", "OK smtp:mx.example.com:2525"),
        ("a.b.tree.example", "OK tree.example", "OK smtp:mx.example.com:2525"),
        ("bücher.example", "OK xn--bcher-kva.example", "NOTFOUND "),
        ("xn--bcher-kva.example", "OK xn--bcher-kva.example", "NOTFOUND "),
        ("mail.example.org", "NOTFOUND ", "NOTFOUND "),
        ("foreign.example", "NOTFOUND ", "NOTFOUND "),
        ("", "NOTFOUND ", "NOTFOUND "),
        ("*", "NOTFOUND ", "NOTFOUND "),
        ("anna@example.net", "OK example.net", "OK smtp:[192.0.2.25]"),
        ("ANNA+news@Example.NET", "OK example.net", "OK smtp:[192.0.2.25]"),
        ("a@b@example.net", "OK example.net", "OK smtp:[192.0.2.25]"),
        ("anna@branch.tree.example", "OK tree.example", "OK smtp:mx.example.com:2525"),
        ("own.tree.example", "OK own.tree.example", "OK smtp:mx.example.com:2525"),
        ("a.own.tree.example", "OK tree.example", "OK smtp:mx.example.com:2525"),
        ("a.b.wide.tree.example", "OK wide.tree.example", "OK smtp:mx.example.com:2525"),
        ("sub.below.example.net", "NOTFOUND ", "NOTFOUND "),
        ("below.example.net", "OK below.example.net", "NOTFOUND "),
        ("anna@foreign.example", "NOTFOUND ", "NOTFOUND "),
        ("anna@", "NOTFOUND ", "NOTFOUND "),
        ("anna", "NOTFOUND ", "NOTFOUND "),
        ("localhost", "NOTFOUND ", "NOTFOUND "),
        ("anna@[192.0.2.1]", "NOTFOUND ", "NOTFOUND "),
        ("[192.0.2.1]", "NOTFOUND ", "NOTFOUND "),
    ],
)
def test_both_tables_answer_by_domain(table: Replica, key: str, relay: str, transport: str) -> None:
    assert ask(table, "relay-domains", key) == relay
    assert ask(table, "transport", key) == transport


@pytest.mark.parametrize("name", ["", "relay_domains", "Transport", "virtual"])
def test_a_table_that_is_not_here_is_a_permanent_error_that_names_those_that_are(
    table: Replica, name: str
) -> None:
    assert ask(table, name, "example.org") == "PERM no such table; relay-domains and transport are here"


@pytest.mark.parametrize("name", ["relay-domains", "transport"])
def test_an_empty_table_is_a_temporary_error_and_never_a_false_not_found(tmp_path: Path, name: str) -> None:
    replica = Replica(tmp_path)
    try:
        assert ask(replica, name, "example.org") == "TEMP no relay domains are known"
    finally:
        replica.close()


@pytest.mark.parametrize("name", ["relay-domains", "transport"])
def test_an_unreadable_table_is_a_temporary_error_and_never_a_false_not_found(
    tmp_path: Path, name: str
) -> None:
    replica = Replica(tmp_path)
    replica.add([Record("example.org")], FROM_COMMAND)
    replica.close()
    assert ask(replica, name, "example.org") == "TEMP the table cannot be trusted now"


@given(st.text(max_size=300))
def test_whatever_key_is_asked_there_is_an_answer(table: Replica, key: str) -> None:
    for name in ("relay-domains", "transport"):
        assert ask(table, name, key).startswith(("OK ", "NOTFOUND "))
