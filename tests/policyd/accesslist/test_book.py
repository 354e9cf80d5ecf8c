from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.access import Index
from mxweir.testing import question
from mxweir_policyd.accesslist import book as module
from mxweir_policyd.accesslist.book import Book
from mxweir_policyd.accesslist.record import KEPT_WITHDRAWN, Record

NOW = 1_800_000_000.0
MADE = int(NOW * 1e6)


def word(version: int, action: str, value: str = "a.example", expires: float = inf, key: str = "sender_org"):
    return Record(key, value, action, "", expires, "root@mx1", MADE, version)


def rule(index: Index, now: float = NOW, sender: str = "bob@mail.a.example") -> str:
    entry = index.find(question(sender=sender), now)
    return entry.rule if entry else ""


def test_the_later_word_about_a_value_replaces_the_former():
    book = Book()
    assert book.take(word(1, "block"), NOW)
    assert rule(book.index) == "block sender_org"
    assert book.take(word(2, "allow"), NOW)
    assert rule(book.index) == "allow sender_org"
    assert (len(book), book.entries, book.version) == (1, 1, 2)


def test_a_withdrawn_entry_is_looked_up_no_more_and_known_for_a_day():
    book = Book()
    book.take(word(1, "block"), NOW)
    book.take(word(2, ""), NOW)
    assert (rule(book.index), book.entries, len(book)) == ("", 0, 1)
    assert book.index.empty
    assert book.expire(NOW + KEPT_WITHDRAWN - 1) == 0
    assert len(book) == 1
    assert book.expire(NOW + KEPT_WITHDRAWN) == 0
    assert len(book) == 0


def test_an_entry_that_expired_is_forgotten_and_one_that_was_prolonged_is_not():
    book = Book()
    book.take(word(1, "block", "a.example", NOW + 10), NOW)
    book.take(word(2, "block", "b.example", NOW + 10), NOW)
    book.take(word(3, "block", "b.example", NOW + 20), NOW)
    assert book.expire(NOW + 9.9) == 0
    assert book.expire(NOW + 10) == 1
    assert [record.value for record in book.records()] == ["b.example"]
    assert book.expire(NOW + 20) == 1
    assert book.index.empty


def test_a_word_that_is_over_already_takes_away_what_it_replaces():
    book = Book()
    book.take(word(1, "block"), NOW)
    assert book.take(word(2, "block", expires=NOW - 1), NOW)
    assert (len(book), book.version, book.index.empty) == (0, 2, True)


def test_a_full_book_takes_no_new_value_and_still_replaces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST", 2)
    book = Book()
    assert book.take(word(1, "block", "a.example"), NOW)
    assert book.take(word(2, "block", "b.example"), NOW)
    assert not book.take(word(3, "block", "c.example"), NOW)
    assert book.take(word(4, "", "a.example"), NOW)
    assert book.entries == 1


def test_what_is_not_retained_is_forgotten():
    book = Book()
    for version, value in enumerate(["a.example", "b.example", "c.example"], 1):
        book.take(word(version, "block", value), NOW)
    book.retain(["sender_org b.example", "sender_org x.example"])
    assert [record.value for record in book.records()] == ["b.example"]


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["block", "allow", ""]),
        st.sampled_from(
            [("sender_org", "a.example"), ("sender", "x@a.example"), ("client_network", "192.0.2.0/24")]
        ),
        st.sampled_from([inf, NOW + 5, NOW + 50]),
    ),
    max_size=12,
)


@given(WORDS, st.sampled_from([NOW, NOW + 5, NOW + 50]))
def test_what_is_found_is_the_latest_word_in_force_that_matches(words, now):
    book = Book()
    said: dict[tuple[str, str], Record] = {}
    for version, (action, (key, value), expires) in enumerate(words, 1):
        record = word(version, action, value, expires, key)
        book.take(record, NOW)
        said[key, value] = record
    book.expire(now)
    in_force = [each for each in said.values() if each.action and each.expires > now]
    latest = max(in_force, key=lambda each: each.version, default=None)
    found = book.index.find(question("192.0.2.1", "x@a.example"), now)
    assert found == (latest.entry() if latest else None)
    assert book.entries == len(in_force)
    assert book.index.empty == (not in_force)


def test_words_that_are_said_again_and_again_take_no_more_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST", 5)
    book = Book()
    for version in range(100):
        book.take(word(version, "block", expires=NOW + version + 1), NOW)
    assert len(book._ends) <= 10
    assert book.expire(NOW + 99) == 0
    assert book.expire(NOW + 100) == 1
