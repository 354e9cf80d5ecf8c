from math import inf

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from mxweir.access import Entry
from mxweir.facts import KEYS, Folder
from mxweir_policyd.accesslist.record import (
    KEPT_WITHDRAWN,
    LONGEST_REASON,
    LONGEST_VALUE,
    Record,
    given,
    parse,
)

NOW = 1_800_000_000.0
FOLDER = Folder()
BLOCK = Record(
    "sender_org",
    "a.example",
    "block",
    "no more",
    NOW,
    "root@mx1",
    made=5_000_000,
    version=7,
)

TEXTS = st.text(max_size=40).filter(str.isprintable)
RECORDS = st.builds(
    Record,
    key=st.sampled_from([key for key in KEYS if key != "client_network"]),
    value=TEXTS.filter(bool),
    action=st.sampled_from(["block", "allow", ""]),
    reason=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    expires=st.one_of(st.just(inf), st.floats(0, 1e11)),
    by=TEXTS,
    made=st.integers(0, 10**16),
    version=st.integers(0, 10**15),
)


@examples(RECORDS)
def test_a_record_comes_back_from_its_line_as_it_was(record):
    assert parse(record.line()) == record
    assert record.line().isprintable()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1 2 {}",
        "1 2 []",
        f"1 2 {'[' * 100_000}",
        '1 2 ["sender","a@b","block","",null]',
        '1 2 ["sender","a@b","block","",null,"",1]',
        '1 2 ["sender","a@b","drop","",null,""]',
        '1 2 ["size","9","block","",null,""]',
        '1 2 ["sender","","block","",null,""]',
        '1 2 ["sender",7,"block","",null,""]',
        '1 2 ["sender","a@b","block","","soon",""]',
        '1 2 ["sender","a@b","block","",-1,""]',
        '1 2 ["sender","a@b","block","",NaN,""]',
        '1 2 ["sender","a@b","block","",1e12,""]',
        '1 2 ["sender","a\\nb","block","",null,""]',
        '1 2 ["sender","a@b","block","550 no\\r\\n250 yes",null,""]',
        '1 2 ["sender","a@b","block","für",null,""]',
        '1 2 ["client_network","192.0.2.1/24","block","",null,""]',
        '1 2 ["client_network","a.example","block","",null,""]',
        f'1 2 ["sender","{"a" * (LONGEST_VALUE + 1)}","block","",null,""]',
        f'1 2 ["sender","a@b","block","{"a" * (LONGEST_REASON + 1)}",null,""]',
        'x 2 ["sender","a@b","block","",null,""]',
        '1 -2 ["sender","a@b","block","",null,""]',
        '1 999999999999999999 ["sender","a@b","block","",null,""]',
        '1 ² ["sender","a@b","block","",null,""]',
    ],
)
def test_what_we_would_not_have_written_is_no_record(line):
    with pytest.raises(ValueError, match=r"."):
        parse(line)


def test_what_an_operator_gives_is_folded_as_what_strangers_send_is():
    def folded(key: str, value: str) -> str:
        return given(Record(key, value, "block"), FOLDER).value

    assert folded("sender_org", "BÜCHER.example.") == "xn--bcher-kva.example"
    assert folded("sender", "Bob@A.example") == "bob@a.example"
    assert folded("sender", "<>") == "<>"
    assert folded("client_network", "2001:DB8:0::/32") == "2001:db8::/32"
    assert folded("helo", "MX.example") == "mx.example"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("sender_org", "mail.a.example", 'no registrable domain; write "a.example"'),
        ("client_network", "192.0.2.1/24", "host bits set"),
        ("client_address", "192.0.2.0/24", "write"),
        ("recipient", "anna+news@b.example", 'is seen as "anna@b.example"; write that'),
        ("sender", "", "empty"),
        ("subject", "x", "none of the keys"),
        ("sender", "a@b.example\n", "one line"),
    ],
)
def test_what_would_never_match_is_a_mistake_as_in_the_configuration(key, value, problem):
    with pytest.raises(ValueError, match=problem):
        given(Record(key, value, "block"), FOLDER)


def test_a_record_makes_the_entry_that_is_looked_up():
    assert BLOCK.entry() == Entry(-7, False, "sender_org", "a.example", "no more", NOW)
    assert BLOCK._replace(action="allow").entry().rule == "allow sender_org"


def test_a_word_that_the_list_got_anew_is_no_other_word():
    assert BLOCK._replace(version=99).repeats(BLOCK)
    assert not BLOCK._replace(made=99).repeats(BLOCK)
    assert not BLOCK.repeats(None)


def test_an_entry_may_be_forgotten_when_it_expires_and_a_withdrawal_after_a_day():
    assert BLOCK.until == NOW
    assert BLOCK._replace(expires=inf).until == inf
    assert BLOCK._replace(action="").until == 5 + KEPT_WITHDRAWN
