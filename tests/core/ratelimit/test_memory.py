import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.ratelimit.arithmetic import Seen, Slices
from mxweir.ratelimit.memory import DistinctTable, GcraTable, Pace, Paces, Repeats, Table, WindowTable

NOW = 1_800_000_000.0
UNLIMITED = Pace(float("inf"), 1.0, float("inf"))

TABLES: dict[str, Any] = {"gcra": GcraTable, "window": WindowTable, "distinct": DistinctTable}
KINDS = pytest.mark.parametrize("kind", TABLES)


def made(
    kind: str,
    amount: float = 5.0,
    period: float = 60.0,
    *,
    capacity: int = 1000,
    own: dict[str, Pace] | None = None,
) -> Any:
    return TABLES[kind](Paces(Pace(amount, period, amount), own or {}), capacity)


def pass_(table: Table, key: str, now: float, value: str = "v", cost: float = 1.0) -> bool:
    """Ask, and count if there is room."""
    _, wait, mark = table.ask(key, value, cost, now)
    if wait <= 0:
        table.put(key, mark)
    return wait <= 0


def used(table: Table, key: str, now: float) -> float:
    return table.ask(key, "another", 0.0, now)[0]


def fill(table: Table, key: str, now: float, values: str = "value") -> int:
    """Use all there is; how much that was."""
    count = 0
    while pass_(table, key, now, f"{values} {count}"):
        count += 1
    return count


class Unforgetting:
    """A table that never forgets by itself: what a bounded one must agree with as long as it has room."""

    def __init__(self, kind: str) -> None:
        self.tables: dict[str, Any] = {}
        self.kind = kind

    def of(self, key: str) -> Any:
        return self.tables.setdefault(key, made(self.kind, capacity=10**6))


@KINDS
@given(
    st.lists(
        st.tuples(
            st.floats(0, 40), st.sampled_from("abcdefgh"), st.sampled_from(["x", "y", "z"]), st.booleans()
        ),
        max_size=120,
    )
)
def test_a_table_with_room_forgets_nothing_that_still_counts(kind, events):
    # Eight keys of up to three values in a capacity of sixty: however the generations turn by time.
    table, reference = made(kind, capacity=60), Unforgetting(kind)
    now = NOW
    for gap, key, value, tick in events:
        now += gap
        if tick:
            table.tick(now)
        assert table.ask(key, value, 1.0, now)[:2] == reference.of(key).ask(key, value, 1.0, now)[:2]
        assert pass_(table, key, now, value) == pass_(reference.of(key), key, now, value)


@KINDS
def test_a_key_that_is_used_up_is_remembered_until_it_has_room_again(kind):
    table = made(kind)
    assert fill(table, "a", NOW) == 5
    for second in range(60):
        table.tick(NOW + second)
        assert used(table, "a", NOW + second) > 0
    table.tick(NOW + 120.0)
    assert used(table, "a", NOW + 120.0) == 0


@KINDS
def test_what_was_not_used_for_two_lifetimes_leaves_no_trace(kind):
    table = made(kind)
    for i in range(100):
        pass_(table, f"key {i}", NOW)
    assert len(table) == 100
    for second in range(300):
        table.tick(NOW + second)
    assert len(table) == 0


@KINDS
def test_however_many_keys_come_a_table_stays_within_its_bound(kind):
    table = made(kind, capacity=1000)
    for i in range(20_000):
        pass_(table, f"key {i}", NOW + i / 1000)
        assert len(table) <= 1000


@KINDS
def test_the_memory_of_a_flood_is_bounded(kind):
    table = made(kind, capacity=2000)
    for i in range(4_000):
        pass_(table, f"key {i}", NOW)
    tracemalloc.start()
    try:
        for i in range(20_000):
            pass_(table, f"new key {i}", NOW)
            if i % 1000 == 0:
                table.tick(NOW + i / 1000)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # Three generations of a thousand at the most, the third while it is freed.
    assert grown < 3 * 1000 * 800


@KINDS
def test_a_key_in_use_survives_a_flood_of_new_keys(kind):
    table = made(kind, amount=100.0, period=86400.0, capacity=1000)
    for i in range(100):
        assert pass_(table, "a", NOW, f"value {i}")
        for j in range(200):
            pass_(table, f"flood {i} {j}", NOW)
    assert not pass_(table, "a", NOW, "one more")


@KINDS
def test_a_key_that_is_asked_for_in_vain_survives_a_flood_of_new_keys(kind):
    table = made(kind, period=86400.0, capacity=1000)
    fill(table, "a", NOW)
    for i in range(50):
        for j in range(200):
            pass_(table, f"flood {i} {j}", NOW)
        assert not pass_(table, "a", NOW, "one more")
        table.keep("a")
        assert len(table) <= 1000


@KINDS
def test_keeping_a_key_that_is_not_known_makes_none(kind):
    table = made(kind)
    table.keep("a")
    assert len(table) == 0


@KINDS
def test_keeping_a_key_does_not_bring_back_what_it_was_before(kind):
    table = made(kind)
    pass_(table, "a", NOW, "x")
    table.turn()
    pass_(table, "a", NOW, "y")
    table.keep("a")
    assert used(table, "a", NOW) == 2


@KINDS
def test_of_a_table_that_is_full_the_keys_unused_for_longest_go_first(kind):
    table = made(kind, capacity=100, period=86400.0)
    for i in range(100):
        pass_(table, f"key {i}", NOW)
    pass_(table, "one more", NOW)
    assert used(table, "key 0", NOW) == 0
    assert used(table, "key 99", NOW) == 1


@KINDS
def test_a_generation_is_dropped_bit_by_bit(kind):
    table = made(kind, capacity=10**6)
    table.tick(NOW)
    for i in range(120_000):
        table.young[f"key {i}"] = 1.0
    for second, left in ((60, 0), (120, 70_000), (121, 20_000), (122, 0)):
        table.tick(NOW + 1.1 * second)
        assert len(table._dying) == left


@KINDS
def test_a_smaller_bound_holds_from_the_next_new_key_on(kind):
    table = made(kind, capacity=1000)
    for i in range(400):
        pass_(table, f"key {i}", NOW)
    table.resize(100)
    for i in range(200):
        pass_(table, f"new {i}", NOW)
    assert len(table) <= 100


@KINDS
def test_a_key_with_a_pace_of_its_own_is_counted_by_that(kind):
    table = made(kind, own={"many": Pace(20.0, 60.0, 20.0), "one": Pace(1.0, 60.0, 1.0)})
    assert [fill(table, key, NOW) for key in ("many", "one", "other")] == [20, 1, 5]
    assert [table.capacity(key) for key in ("many", "one", "other")] == [20.0, 1.0, 5.0]


@KINDS
def test_an_unlimited_key_always_passes_and_its_figures_are_numbers(kind):
    table = made(kind, own={"free": UNLIMITED})
    for i in range(100):
        assert pass_(table, "free", NOW, f"value {i}", 1e9)
    assert used(table, "free", NOW) >= 0
    assert table.capacity("free") == float("inf")
    assert not [row for row in table.rows(NOW + 10) if row[0] == "free" and kind == "gcra"]


@KINDS
def test_a_slow_pace_of_one_key_is_not_forgotten_in_the_time_of_the_others(kind):
    table = made(kind, own={"slow": Pace(2.0, 86400.0, 2.0)})
    assert fill(table, "slow", NOW) == 2
    for minute in range(0, 1400, 20):
        table.tick(NOW + minute * 60)
        assert used(table, "slow", NOW + minute * 60) > 0


def copy(source: Table, target: Table, now: float, elapsed: float = 0.0) -> Table:
    """Take rows from one table into another, `elapsed` seconds later."""
    target.load(list(source.rows(now)), now + elapsed, elapsed)
    return target


@KINDS
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from("abc"), st.sampled_from(["x", "y", "z", "w"])),
        max_size=60,
    ),
    st.floats(0, 90),
    st.floats(0.5, 700).map(lambda seconds: round(seconds, 1)),
)
def test_a_table_that_was_carried_over_says_the_same(kind, events, elapsed, period):
    table = made(kind, 4.0, period)
    now = NOW
    for gap, key, value in events:
        now += gap * period / 60
        pass_(table, key, now, value)
    other = copy(table, made(kind, 4.0, period), now, elapsed * period / 60)
    now += elapsed * period / 60
    for key in "abc":
        for value in ("x", "new"):
            said, expected = other.ask(key, value, 1.0, now), table.ask(key, value, 1.0, now)
            assert said[:2] == pytest.approx(expected[:2], abs=1e-3)
            assert bool(said[1]) == bool(expected[1])


@KINDS
@given(st.integers(1, 10), st.integers(1, 10), st.sampled_from([1.0, 60.0, 3600.0, 86400.0]))
def test_a_table_carried_over_to_another_rate_never_gives_more_than_the_new_one_allows(
    kind, before, after, period
):
    table = made(kind, float(before), 3600.0)
    fill(table, "a", NOW)
    other = copy(table, made(kind, float(after), period), NOW)
    assert used(other, "a", NOW) <= max(before, after)
    assert fill(other, "a", NOW, "new") <= max(0, after - before)


@KINDS
def test_what_is_over_is_not_carried_over(kind):
    table = made(kind)
    fill(table, "a", NOW)
    assert len(copy(table, made(kind), NOW, 200.0)) == 0


@KINDS
def test_rows_are_in_the_types_of_json(kind):
    table = made(kind)
    fill(table, "a", NOW)

    def plain(value: object) -> bool:
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return type(value) in (str, float, int)

    rows = list(table.rows(NOW))
    assert len(rows) == 1
    assert all(plain(list(row)) for row in rows)


def test_a_window_keeps_at_most_one_number_for_each_of_its_parts():
    table = made("window", amount=1e9)
    for i in range(10_000):
        pass_(table, "a", NOW + i / 50)
    slices = table.get("a", Slices())
    assert len(slices.counts) <= 61
    assert slices.total == sum(slices.counts.values())


def parts(table: Any) -> int:
    """What the bound of a window or a distinct table counts."""
    return sum(map(len, {id(held): held for _, held in table.items()}.values()))


def test_the_bound_of_a_window_counts_the_parts_that_were_used():
    table = made("window", amount=1e9, capacity=6000)
    for second in range(60):
        for key in range(1000):
            pass_(table, f"key {key}", NOW + second)
            assert len(table) <= 6000
    assert parts(table) <= 6000


def test_keys_in_use_of_a_window_keep_all_that_they_used_as_long_as_their_parts_have_room():
    table = made("window", amount=1e9, capacity=6000)
    for second in range(600):
        table.tick(NOW + second)
        for key in range(40):
            pass_(table, f"key {key}", NOW + second)
    assert all(used(table, f"key {key}", NOW + 600) == 60 for key in range(40))


@pytest.mark.parametrize("kind", ["window", "distinct"])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.1, 1.0, 30.0, 200.0]),
            st.sampled_from("abcdef"),
            st.sampled_from("xyzuvw"),
            st.sampled_from(["ask", "keep", "tick"]),
        ),
        max_size=150,
    )
)
def test_the_parts_counted_are_those_of_the_young_generation(kind, events):
    table = made(kind, amount=4.0, capacity=30)
    now = NOW
    for gap, key, value, also in events:
        now += gap
        pass_(table, key, now, value)
        if also == "tick":
            table.tick(now)
        elif also == "keep":
            table.keep(key)
        assert table._parts == sum(map(len, table.young.values())) < table.half


def test_the_bound_of_a_distinct_table_counts_values():
    table = made("distinct", amount=100.0, capacity=1000)
    for key in range(100):
        for value in range(100):
            pass_(table, f"key {key}", NOW, f"value {value}")
    seen = {id(seen): seen for _, seen in table.items()}
    assert sum(map(len, seen.values())) <= 1000 + 100
    assert isinstance(table.get("key 99", Seen()), Seen)


def test_repeats_remember_the_last_sixteen_thousand_and_stay_bounded():
    repeats = Repeats()
    for identity in range(1, 200_000):
        repeats.add(identity)
        assert identity in repeats
        assert len(repeats.young) + len(repeats.old) <= 32_768
    assert all(identity in repeats for identity in range(200_000 - 16_384, 200_000))
    assert 1 not in repeats
