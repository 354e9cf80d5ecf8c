from math import inf

import pytest

from mxweir_policyd.accesslist import remote
from mxweir_policyd.accesslist.record import Record
from mxweir_policyd.accesslist.remote import Names, Reading, in_step, to_give_back

NAMES = Names("mxweir")


def word(version: int, action: str = "block", expires: float = inf) -> Record:
    return Record("sender_org", f"a{version}.example", action, "", expires, "", version, version)


def reading(history: str = "7", version: int = 20, floor: int = 0) -> Reading:
    return Reading(0, history, version, floor, [], version, False, 0)


def test_all_keys_of_the_list_are_in_one_slot_and_below_the_prefix():
    tags = {key[key.index("{") : key.index("}") + 1] for key in NAMES.keys}
    assert tags == {"{access}"}
    assert all(name.startswith("mxweir:") for name in (*NAMES.keys, NAMES.channel))


@pytest.mark.parametrize(
    ("history", "known", "follows"),
    [
        ("7", 20, True),
        ("7", 12, True),
        ("7", 9, False),  # what was forgotten since may have been withdrawn
        ("7", 21, False),  # Redis has less than we have seen
        ("6", 20, False),
        ("", 15, False),  # a list of our own
        ("", 0, False),
    ],
)
def test_a_host_reads_on_only_where_it_can_have_missed_nothing(history, known, follows):
    assert in_step(reading(floor=10), history, known) is follows


def test_a_host_that_knows_nothing_reads_on_from_the_beginning():
    assert in_step(reading(floor=0), "", 0)
    assert in_step(Reading(0, "", 0, 0, [], 0, False, 0), "", 0)


@pytest.mark.parametrize(
    ("there", "history", "given_back"),
    [
        (reading("", 0, 0), "7", [5, 15, 25]),  # emptied
        (reading("9", 30, 12), "7", [15, 25]),  # emptied, and another host that knew up to 12 was quicker
        (reading("9", 30, 0), "7", [5, 15, 25]),  # emptied, and an operator was quicker
        (reading("7", 20, 0), "7", [25]),  # a failover lost the last word
        (reading("7", 30, 28), "7", []),  # we were away
        (reading("7", 20, 0), "", [5, 15, 25]),  # a list from before there was Redis
    ],
)
def test_a_host_gives_back_what_redis_cannot_know_better(there, history, given_back):
    known = [word(5), word(15, ""), word(25)]
    assert [record.version for record in to_give_back(there, history, known)] == given_back


def test_what_the_script_replies_is_read_with_nonsense_passed_over():
    lines = [word(3).line().encode(), b"nonsense", b"\xff", word(5).line().encode()]
    found = remote.read([b"9", b"7", b"5", b"0", *lines])
    assert [record.version for record in found.records] == [3, 5]
    assert (found.now, found.history, found.version, found.floor) == (9, "7", 5, 0)
    assert (found.read, found.more, found.bad) == (5, False, 2)


def test_a_full_page_says_where_to_go_on():
    lines = [word(version).line().encode() for version in range(1, remote.PAGE + 1)]
    found = remote.read([b"9", b"7", b"1000", b"0", *lines])
    assert (found.read, found.more) == (remote.PAGE, True)


@pytest.mark.parametrize(
    "reply", [None, 7, b"", [], [b"1", b"2", b"3"], [1, 2, 3, 4], [b"x", b"", b"1", b"1"]]
)
def test_what_the_script_cannot_have_said_is_an_error(reply):
    with pytest.raises(ValueError, match=r"."):
        remote.read(reply)


def test_a_change_says_when_it_may_be_forgotten_and_a_withdrawal_leaves_that_to_redis():
    assert remote.change(NAMES, word(1, expires=1.5))[-2:] == ["1500", ""]
    assert remote.change(NAMES, word(1))[-2:] == ["", ""]
    assert remote.change(NAMES, word(1, ""))[-2:] == ["", "withdraw"]


def test_records_that_are_no_later_than_what_is_known_do_not_keep_it_reading():
    lines = [word(5).line().encode()] * remote.PAGE
    found = remote.read([b"9", b"7", b"1000", b"0", *lines], after=5)
    assert (found.records, found.more, found.bad) == ([], False, remote.PAGE)
