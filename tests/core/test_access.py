import datetime
import ipaddress
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.access import AccessList, Entry, Index
from mxweir.config import AccessEntry
from mxweir.facts import READERS, Folder
from mxweir.testing import question

NOW = 1_800_000_000.0
FOLDER = Folder()


def listed(*entries: AccessEntry) -> AccessList:
    return AccessList(entries, FOLDER)


def block(key: str, value: str, *, expires: float | None = None) -> AccessEntry:
    return AccessEntry(block=key, value=value, expires=expires)


def allow(key: str, value: str) -> AccessEntry:
    return AccessEntry(allow=key, value=value)


def order(access: AccessList, facts, now: float = NOW) -> int | None:
    """Which entry matches, by its place; None if none does."""
    entry = access.find(facts, now)
    return None if entry is None else entry.order


FACTS = question(
    "192.0.2.77", "bob@mail.a.example", "carol@b.example", helo="MX.example.org", sasl_username="Dave"
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client_address", "192.0.2.77"),
        ("client_network", "192.0.2.0/24"),
        ("client_network", "192.0.2.77/32"),
        ("client_network", "0.0.0.0/0"),
        ("helo", "mx.EXAMPLE.org"),
        ("sender", "Bob@Mail.A.example"),
        ("sender_domain", "MAIL.a.example"),
        ("sender_org", "a.example"),
        ("recipient", "carol@b.example"),
        ("recipient_domain", "B.example."),
        ("sasl_username", "DAVE"),
    ],
)
def test_an_entry_of_any_key_matches_its_value(key, value):
    assert order(listed(block(key, value)), FACTS) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client_address", "192.0.2.78"),
        ("client_network", "192.0.3.0/24"),
        ("client_network", "192.0.2.76/32"),
        ("client_network", "::/0"),
        ("helo", "example.org"),
        ("sender", "bob@a.example"),
        ("sender_domain", "a.example"),
        ("sender_org", "mail.a.example"),
        ("recipient", "bob@mail.a.example"),
        ("recipient_domain", "example"),
        ("sasl_username", "bob"),
    ],
)
def test_an_entry_matches_nothing_else(key, value):
    assert order(listed(block(key, value)), FACTS) is None


def test_an_empty_list_matches_nothing():
    assert order(listed(), FACTS) is None


def test_the_first_entry_that_matches_wins_whatever_its_key():
    by_sender, by_network, by_other = (
        block("sender", "bob@mail.a.example"),
        allow("client_network", "192.0.2.0/24"),
        block("sender", "x@y.example"),
    )
    assert order(listed(by_other, by_sender, by_network), FACTS) == 1
    assert order(listed(by_other, by_network, by_sender), FACTS) == 1
    assert order(listed(by_network, by_sender), FACTS) == 0
    found = listed(by_network, by_sender).find(FACTS, NOW)
    assert found is not None
    assert (found.allow, found.rule) == (True, "allow client_network")


def test_of_two_networks_the_one_written_first_wins_and_not_the_smaller():
    wide, narrow = allow("client_network", "192.0.0.0/16"), block("client_network", "192.0.2.0/24")
    assert order(listed(wide, narrow), FACTS) == 0
    assert order(listed(narrow, wide), FACTS) == 0


def test_an_entry_counts_until_the_moment_it_expires():
    access = listed(block("sender", "bob@mail.a.example", expires=NOW + 60), block("sender_org", "a.example"))
    assert order(access, FACTS, NOW + 59.999) == 0
    assert order(access, FACTS, NOW + 60) == 1
    assert order(access, FACTS, NOW + 1e9) == 1


def test_a_network_entry_expires_too():
    access = listed(block("client_network", "192.0.2.0/24", expires=NOW))
    assert order(access, FACTS, NOW - 1) == 0
    assert order(access, FACTS, NOW) is None


@pytest.mark.parametrize(
    ("client", "matches"),
    [
        ("2001:db8:5::1", 0),
        ("2001:DB8:0005:0::1", 0),
        ("2001:db8:6::1", 1),
        ("2001:db9::1", None),
        ("::ffff:192.0.2.1", 2),
        ("192.0.2.1", 2),
        ("unknown", None),
        ("", None),
    ],
)
def test_networks_of_both_families_match_their_own(client, matches):
    access = listed(
        block("client_network", "2001:db8:5::/48"),
        block("client_network", "2001:db8::/32"),
        block("client_network", "192.0.2.0/24"),
    )
    assert order(access, question(client)) == matches


def test_the_null_sender_can_be_listed():
    access = listed(block("sender", "<>"))
    assert order(access, question(sender="")) == 0
    assert order(access, FACTS) is None


def test_a_question_that_lacks_the_key_matches_no_entry():
    access = listed(block("sasl_username", "dave"), block("helo", "mx.example.org"))
    assert order(access, question()) is None


def test_the_rule_of_an_entry_names_no_value():
    found = listed(block("sender_org", "a.example")).find(FACTS, NOW)
    assert found is not None
    assert found.rule == "block sender_org"


def command(order: int, action: str, key: str, value: str, expires: float = float("inf")) -> Entry:
    """What an operator's command made."""
    return Entry(order, action == "allow", key, value, "said so", expires)


def test_a_command_goes_before_every_entry_of_the_file():
    commands = Index()
    access = AccessList([allow("client_network", "192.0.2.0/24")], FOLDER, commands)
    commands.put(blocked := command(-1, "block", "sender_org", "a.example"))
    assert access.find(FACTS, NOW) == blocked
    commands.drop(blocked)
    assert order(access, FACTS) == 0


def test_of_two_commands_that_match_the_later_wins_whatever_it_says_and_however_wide_it_is():
    commands = Index()
    access = AccessList([], FOLDER, commands)
    wide = command(-1, "allow", "client_network", "192.0.0.0/16")
    narrow = command(-2, "block", "sender", "bob@mail.a.example")
    for entry in (narrow, wide):
        commands.put(entry)
    assert access.find(FACTS, NOW) == narrow
    commands.drop(narrow)
    assert access.find(FACTS, NOW) == wide


def test_a_command_that_expired_leaves_it_to_the_earlier_ones_and_to_the_file():
    commands = Index()
    access = AccessList([block("sender_org", "a.example")], FOLDER, commands)
    commands.put(command(-1, "allow", "client_address", "192.0.2.77", expires=NOW + 1))
    assert order(access, FACTS, NOW) == -1
    assert order(access, FACTS, NOW + 1) == 0


def test_the_list_is_empty_as_long_as_neither_part_has_an_entry():
    commands = Index()
    access = AccessList([], FOLDER, commands)
    entries = [command(-1, "block", key, value) for key, values in VALUES.items() for value in values]
    found = [access.empty]
    for change in (
        *(partial(commands.put, entry) for entry in entries),
        *(partial(commands.drop, entry) for entry in entries),
    ):
        change()
        found.append(access.empty)
    assert found == [True, *[False] * (2 * len(entries) - 1), True]
    assert not AccessList([block("sender_org", "a.example")], FOLDER).empty


def walked(entries: list[AccessEntry], facts, now: float) -> int | None:
    """The definition: look at one entry after the other."""
    for number, entry in enumerate(entries):
        key = entry.block or entry.allow or ""
        if entry.expires is not None and entry.expires <= now:
            continue
        if key == "client_network":
            if ipaddress.ip_address(facts.client.address) in ipaddress.ip_network(entry.value):
                return number
        elif READERS[key](facts) == FOLDER.key(key, entry.value):
            return number
    return None


VALUES = {
    "client_address": ["192.0.2.1", "192.0.2.130", "2001:db8::1"],
    "client_network": ["192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "2001:db8::/32", "::/0"],
    "sender": ["a@x.example", "b@x.example", "<>"],
    "sender_org": ["x.example", "y.example"],
    "recipient": ["c@z.example"],
}
ENTRIES = st.sampled_from([(key, value) for key, values in VALUES.items() for value in values]).flatmap(
    lambda pair: st.builds(
        AccessEntry,
        block=st.just(pair[0]),
        value=st.just(pair[1]),
        expires=st.sampled_from([None, NOW - 1, NOW, NOW + 1]),
    )
)


@given(
    st.lists(ENTRIES, max_size=12),
    st.sampled_from(VALUES["client_address"]),
    st.sampled_from(["a@x.example", "b@x.example", "b@sub.y.example", ""]),
    st.sampled_from(["c@z.example", "d@z.example"]),
)
def test_looking_up_says_what_walking_the_list_would(entries, client, sender, recipient):
    facts = question(client, sender, recipient)
    assert order(listed(*entries), facts) == walked(entries, facts, NOW)


def test_ten_thousand_entries_are_looked_up_and_not_walked():
    entries = [block("sender_org", f"org{i}.example") for i in range(5_000)]
    entries += [block("client_network", f"10.{i // 256}.{i % 256}.0/24") for i in range(5_000)]
    access = listed(*entries)
    assert order(access, question(sender="x@mail.org4999.example")) == 4_999
    assert order(access, question("10.19.135.7")) == 9_999

    class CountedStr(str):
        __slots__ = ()
        asked = 0

        def __hash__(self) -> int:
            type(self).asked += 1
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            type(self).asked += 1
            return super().__eq__(other)

    facts = question()
    facts = facts._replace(sender=replace(facts.sender, org=CountedStr("nobody.example")))
    assert order(access, facts) is None
    assert 0 < CountedStr.asked < 10


def test_the_moment_of_expiry_is_read_in_the_same_seconds_as_the_clock():
    when = datetime.datetime(2027, 1, 15, 8, 0, tzinfo=datetime.UTC)
    assert when.timestamp() == NOW
