import pytest

from mxweir.config import loads
from mxweir.facts import Folder
from mxweir_milter.allow import Allowed
from mxweir_milter.facts import Client

CLIENT = Client("mail.sender.example", "203.0.113.9", "Helo.sender.example")


def rule(entries, client=CLIENT, sender="bert@news.sender.example", user="", recipient="Anna+x@Example.ORG"):
    text = "\n".join(f"[[access]]\n{entry}" for entry in entries)
    return Allowed(loads(text).access, Folder()).rule(client, sender, user, recipient, 1_800_000_000.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client_address", "203.0.113.9"),
        ("client_network", "203.0.113.0/24"),
        ("client_network", "203.0.0.0/16"),
        ("helo", "helo.sender.example"),
        ("sender", "bert@news.sender.example"),
        ("sender_domain", "news.sender.example"),
        ("sender_org", "sender.example"),
        ("recipient", "anna@example.org"),
        ("recipient_domain", "example.org"),
    ],
)
def test_every_key_that_the_policy_daemon_knows_allows_here_too(key, value):
    assert rule([f'allow = "{key}"\nvalue = "{value}"']) == f"allow {key}"


def test_a_user_who_has_logged_in_is_allowed_by_name():
    assert rule(['allow = "sasl_username"\nvalue = "bob"'], user="Bob") == "allow sasl_username"
    assert rule(['allow = "sasl_username"\nvalue = "bob"'], user="") == ""


def test_what_no_entry_names_is_not_allowed():
    assert rule(['allow = "sender"\nvalue = "carol@sender.example"']) == ""


def test_the_null_sender_is_a_key_of_its_own():
    assert rule(['allow = "sender"\nvalue = "<>"'], sender="") == "allow sender"


def test_an_entry_that_blocks_ends_the_search_and_does_nothing_else():
    block, allow = (
        'block = "sender"\nvalue = "bert@news.sender.example"',
        'allow = "sender_org"\nvalue = "sender.example"',
    )
    assert rule([block, allow]) == ""
    assert rule([allow, block]) == "allow sender_org"


def test_an_entry_that_has_expired_allows_nothing():
    assert rule(['allow = "sender_org"\nvalue = "sender.example"\nexpires = 2020-01-01T00:00:00Z']) == ""


@pytest.mark.parametrize("text", ["", "unknown", "\udcff", "é@é", "x" * 5000, "@@@"])
def test_no_input_makes_the_lookup_raise(text):
    entries = ['allow = "client_network"\nvalue = "192.0.2.0/24"', 'allow = "sender"\nvalue = "a@b.example"']
    assert rule(entries, Client(text, text, text), text, text, text) == ""
