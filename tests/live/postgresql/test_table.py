"""Adding, removing and importing, as the commands do it."""

import threading

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mxweir.domains.record import Record
from mxweir_policyd.relaydomains.sources.postgres import SourceError
from mxweir_policyd.relaydomains.table import (
    Changed,
    RefusedError,
    add,
    remove,
    replace,
    unicode_name,
)

COLUMNS = "name, unicode_name, next_hop, include_subdomains, enabled, tenant"


def rows(connection):
    return connection.execute(f"SELECT {COLUMNS} FROM mxweir.domains ORDER BY name").fetchall()


def names(connection) -> list[str]:
    return [row[0] for row in rows(connection)]


def records(count: int) -> list[Record]:
    return [Record(f"d{number}.example") for number in range(count)]


def test_adding_takes_nothing_away_and_switches_on(connection):
    assert add(connection, [Record("a.example", "smtp:[192.0.2.1]", True)], "one") == 1
    connection.execute("UPDATE mxweir.domains SET enabled = false")
    assert (
        add(connection, [Record("a.example", "relay:[192.0.2.2]"), Record("xn--bcher-kva.example")], None)
        == 1
    )
    assert rows(connection) == [
        ("a.example", "", "relay:[192.0.2.2]", True, True, "one"),
        ("xn--bcher-kva.example", "bücher.example", "", False, True, ""),
    ]


def test_of_several_to_add_all_are_added_or_none(connection):
    with pytest.raises(SourceError, match="name is a mail domain"):
        add(connection, [Record("a.example"), Record("no domain"), Record("b.example")], None)
    assert rows(connection) == []


def test_removing_says_whether_there_was_anything(connection):
    add(connection, records(2), None)
    assert remove(connection, "d0.example")
    assert not remove(connection, "d0.example")
    assert names(connection) == ["d1.example"]


def test_an_import_makes_the_table_what_the_file_has_and_leaves_tenants_alone(connection):
    add(connection, [*records(3), Record("kept.example")], "one")
    connection.execute("UPDATE mxweir.domains SET enabled = false WHERE name = 'kept.example'")
    wanted = [
        Record("d1.example", "smtp:[192.0.2.1]"),
        Record("new.example", "", True),
        Record("kept.example"),
    ]
    assert replace(connection, wanted, 1.0) == Changed(added=1, removed=2, total=3)
    assert rows(connection) == [
        ("d1.example", "", "smtp:[192.0.2.1]", False, True, "one"),
        ("kept.example", "", "", False, False, "one"),
        ("new.example", "", "", True, True, ""),
    ]


def test_what_an_import_does_not_change_is_no_change_to_the_replicas(connection, source):
    replace(connection, records(100), 1.0)
    point = source.point()
    assert replace(connection, records(101), 1.0) == Changed(1, 0, 101)
    assert [len(batch) for batch in source.changes(point)] == [1]


def test_a_domain_that_comes_twice_counts_as_it_came_last_but_for_its_subdomains(connection):
    twice = [Record("a.example", "smtp:[192.0.2.1]", True), Record("a.example", "smtp:[192.0.2.2]")]
    assert replace(connection, [*records(20), *twice], 1.0).total == 21
    assert rows(connection)[0][:4] == ("a.example", "", "smtp:[192.0.2.2]", True)


def test_an_import_that_takes_away_too_much_changes_nothing(connection):
    replace(connection, records(10), 0.2)
    with pytest.raises(RefusedError, match="3 of 10 domains would go, more than max_shrink = 20%"):
        replace(connection, records(7), 0.2)
    assert len(rows(connection)) == 10
    assert replace(connection, records(8), 0.2) == Changed(0, 2, 8)


def test_a_file_that_cannot_be_read_to_its_end_changes_nothing(connection):
    def broken():
        yield Record("new.example")
        raise OSError("the disk is gone")

    add(connection, records(2), None)
    with pytest.raises(OSError, match="the disk is gone"):
        replace(connection, broken(), 1.0)
    assert names(connection) == ["d0.example", "d1.example"]


def test_of_two_imports_at_once_one_is_whole_and_then_the_other(connection, settings):
    sets = [[Record(f"{name}{number}.example") for number in range(200)] for name in "ab"]

    def import_one(wanted) -> None:
        with psycopg.connect(settings.dsn, autocommit=True) as other:
            replace(other, wanted, 1.0)

    threads = [threading.Thread(target=import_one, args=[wanted]) for wanted in sets * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(connection) in [sorted(record.domain for record in wanted) for wanted in sets]


@hypothesis_settings(
    max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30), max_size=5))
def test_whatever_a_next_hop_holds_arrives_as_it_was(connection, hops):
    wanted = [Record(f"d{number}.example", hop) for number, hop in enumerate(hops)]
    replace(connection, wanted, 1.0)
    assert [row[2] for row in rows(connection)] == hops


def test_a_name_that_reads_as_itself_has_no_other_form():
    assert unicode_name("xn--bcher-kva.example") == "bücher.example"
    assert unicode_name("a.example") == unicode_name("xn--i-7iq.example") == ""
