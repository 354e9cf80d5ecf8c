import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.facts import KEYS, READERS, Folder, fold_word
from mxweir.testing import question

QUESTION = question(
    client="2001:DB8::77",
    sender="News-Bob=B.example@Mail.Lists.Example.ORG",
    recipient="Bob+Tag@B\xfccher.example",
    helo="MAIL.Example.org",
    sasl_username="Alice",
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client_address", "2001:db8::77"),
        ("client_network", "2001:db8::/64"),
        ("helo", "mail.example.org"),
        ("sender", "news@mail.lists.example.org"),
        ("sender_domain", "mail.lists.example.org"),
        ("sender_org", "example.org"),
        ("recipient", "bob@xn--bcher-kva.example"),
        ("recipient_domain", "xn--bcher-kva.example"),
        ("sasl_username", "alice"),
    ],
)
def test_a_key_is_read_from_the_facts_in_its_folded_form(key, value):
    assert READERS[key](QUESTION) == value


def test_the_keys_are_those_of_the_design():
    assert set(KEYS) == {
        "client_address",
        "client_network",
        "helo",
        "sender",
        "sender_domain",
        "sender_org",
        "recipient",
        "recipient_domain",
        "sasl_username",
    }


def test_what_the_client_wrote_is_kept_for_the_log():
    assert QUESTION.sender.given == "News-Bob=B.example@Mail.Lists.Example.ORG"
    assert QUESTION.recipient.given == "Bob+Tag@B\xfccher.example"


def test_the_null_sender_is_a_key_of_its_own_whatever_is_asked_of_it():
    facts = question(sender="")
    assert [READERS[key](facts) for key in ("sender", "sender_domain", "sender_org")] == ["<>"] * 3


def test_a_key_that_the_question_lacks_is_empty():
    facts = question(recipient="postmaster", sender="cron")
    for key in ("helo", "sasl_username", "sender_domain", "sender_org", "recipient_domain"):
        assert READERS[key](facts) == ""


def test_a_question_about_several_recipients_has_no_key_of_one():
    facts = question(recipient="")
    assert [READERS[key](facts) for key in ("recipient", "recipient_domain")] == ["", ""]


@pytest.mark.parametrize(
    ("size", "read"),
    [("12345", 12345), ("", 0), ("-1", 0), ("1e9", 0), ("\u0661", 0), ("9" * 18, 10**18 - 1), ("9" * 19, 0)],
)
def test_the_size_is_a_number_or_unknown(size, read):
    assert question(size=size).size_in_bytes == read


@given(st.binary(max_size=100), st.sampled_from(KEYS))
def test_what_an_operator_writes_folds_as_what_strangers_send(raw, key):
    folder = Folder()
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    facts = question(text, text, text, folder=folder, helo=text, sasl_username=text)
    seen = READERS[key](facts)
    # A network or a part of an address is written as such, in its folded form.
    written = seen if key in ("client_network", "sender_domain", "sender_org", "recipient_domain") else text
    assert folder.key(key, written) == seen or not written


@given(st.binary(max_size=2000))
def test_a_word_of_any_bytes_is_a_short_key_of_valid_text(raw):
    assert len(fold_word(raw).encode().decode()) <= 255


def test_the_settings_of_a_folder_are_its_own():
    wide, narrow = Folder(16, 48, ""), Folder(32, 128, "-")
    for folder, network, mailbox in (
        (wide, "192.0.0.0/16", "a-b+c@x.org"),
        (narrow, "192.0.2.1/32", "a@x.org"),
    ):
        facts = question("192.0.2.1", recipient="a-b+c@x.org", folder=folder)
        assert facts.client.network == network
        assert facts.recipient.mailbox == mailbox


def test_what_is_folded_is_folded_once():
    folder = Folder()
    first = folder.sender[b"alice@a.example"]
    assert folder.sender[b"alice@a.example"] is first


def test_what_strangers_send_does_not_fill_the_memory():
    folder = Folder()
    longest = b"x" * 60_000
    tracemalloc.start()
    try:
        for i in range(40_000):
            folder.recipient[b"%d@b.example" % i]
        before = tracemalloc.get_traced_memory()[0]
        for i in range(500):
            folder.recipient[b"%d%s@b.example" % (i, longest)]
            folder.sender[b"a@%d%s" % (i, longest)]
            folder.client[b"%d%s" % (i, longest)]
            fold_word(b"%d%s" % (i, longest))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(folder.recipient) <= 16_384
    assert after - before < 2_000_000
