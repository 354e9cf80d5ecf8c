"""The replica follows its source: filled, caught up, compared; interrupted anywhere."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.domains.match import digest
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_policyd.relaydomains.follow import Follower
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.queries import LAST
from mxweir_policyd.relaydomains.sources.postgres import Digest, Point, PointLostError, SourceError


class Table:
    """A source in memory: small batches and ranges, and it can break after any number of calls."""

    def __init__(self, count: int = 0) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.log: list[bytes] = []
        self.identity = "here/1"
        self.calls_left = 10**9
        self.read = 0
        for number in range(count):
            self.put(number)

    def put(self, number: int, hop: str = "", enabled: bool = True) -> None:
        record = Record(f"d{number}.example", hop, False, FROM_POSTGRES, enabled)
        self.rows[digest(record.domain)] = record.encode()
        self.log.append(digest(record.domain))

    def remove(self, number: int) -> None:
        key = digest(f"d{number}.example")
        self.rows.pop(key, None)
        self.log.append(key)

    def forget(self) -> None:
        """As if it were another cluster, or one set back: what changed cannot be told any more."""
        self.identity += "x"

    def _call(self) -> None:
        if self.calls_left == 0:
            raise SourceError("broken")
        self.calls_left -= 1

    def point(self) -> Point:
        self._call()
        return Point(self.identity, str(len(self.log)), 1000.0 + len(self.log))

    def fill(self, after: bytes = b"", end: bytes = LAST) -> Iterator[list[tuple[bytes, bytes]]]:
        while True:
            self._call()
            keys = sorted(key for key in self.rows if after < key <= end)[:3]
            self.read += len(keys)
            if keys:
                yield [(key, self.rows[key]) for key in keys]
            if len(keys) < 3:
                return
            after = keys[-1]

    def changes(self, since: Point) -> Iterator[list[tuple[bytes, bytes | None]]]:
        if since.identity != self.identity:
            raise PointLostError("another cluster")
        keys = sorted(set(self.log[int(since.mark) :]))
        for at in range(0, len(keys), 3):
            self._call()
            yield [(key, self.rows.get(key)) for key in keys[at : at + 3]]

    def digest(self, after: bytes = b"") -> Digest:
        self._call()
        keys = sorted(key for key in self.rows if key > after)[:8]
        found = hashlib.sha256(b"".join(key + self.rows[key] for key in keys)).digest()
        return Digest(keys[-1] if len(keys) == 8 else LAST, len(keys), found)


def content(mirror: Mirror) -> dict[bytes, bytes]:
    return dict(mirror._between(b"", LAST))


def follower(mirror: Mirror, table: Table) -> Follower:
    return Follower(mirror, table, 0.2, lambda: 5000.0)


def bring_up(mirror: Mirror, table: Table) -> None:
    follow = follower(mirror, table)
    for _ in follow.fill():
        pass
    follow.catch_up()
    while follow.compare() is not None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    opened = Mirror(tmp_path)
    yield opened
    opened.close()


def test_a_first_fill_brings_all_and_tells_how_far_it_is(mirror: Mirror) -> None:
    table = Table(100)
    shares = [step.share for step in follower(mirror, table).fill()]
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (5, 1.0)
    assert content(mirror) == table.rows
    assert mirror.progress().filled


def test_a_first_fill_that_was_interrupted_goes_on_and_reads_nothing_twice(mirror: Mirror) -> None:
    table = Table(200)
    table.calls_left = 25
    with pytest.raises(SourceError):
        list(follower(mirror, table).fill())
    progress = mirror.progress()
    assert (progress.filled, bool(progress.cursor)) == (False, True)
    have = len(content(mirror))
    table.calls_left, table.read = 10**9, 0
    list(follower(mirror, table).fill())
    assert content(mirror) == table.rows
    assert table.read == 200 - have


def test_a_first_fill_starts_over_with_another_cluster(mirror: Mirror) -> None:
    table, other = Table(200), Table(50)
    table.calls_left = 25
    with pytest.raises(SourceError):
        list(follower(mirror, table).fill())
    other.forget()
    list(follower(mirror, other).fill())
    assert content(mirror) == other.rows


def test_what_changes_during_the_fill_is_caught_up_behind_it(mirror: Mirror) -> None:
    table = Table(100)
    for number, _ in enumerate(follower(mirror, table).fill()):
        table.put(1000 + number)
        table.remove(number)
        table.put(50 + number, hop="smtp:x")
    assert content(mirror) != table.rows
    follower(mirror, table).catch_up()
    assert content(mirror) == table.rows
    assert mirror.progress().seen == 5000.0


def test_catching_up_takes_over_what_changed_and_nothing_else(mirror: Mirror) -> None:
    table = Table(100)
    bring_up(mirror, table)
    table.put(200)
    table.put(3, hop="smtp:x")
    table.remove(4)
    table.put(5, enabled=False)
    table.read = 0
    step = follower(mirror, table).catch_up()
    assert (step.applied.changed, step.applied.lost, step.since) == (2, 2, 4.0)
    assert (content(mirror), table.read) == (table.rows, 0)
    assert follower(mirror, table).catch_up().applied.changed == 0


def test_catching_up_on_many_changes_says_now_and_then_that_it_lives(mirror: Mirror) -> None:
    table, signs = Table(), list[None]()
    followed = Follower(mirror, table, 0.2, lambda: 5000.0, alive=lambda: signs.append(None))
    list(followed.fill())
    for number in range(30):
        table.put(number)
    assert followed.catch_up().applied.changed == 30
    assert len(signs) == 2


def test_a_comparison_reads_only_the_ranges_that_differ(mirror: Mirror) -> None:
    table = Table(100)
    bring_up(mirror, table)
    mirror.apply([(digest("stray.example"), Record("stray.example", origins=FROM_POSTGRES).encode())], 0.2)
    mirror.apply([(key, b"\x10\0\0other") for key in list(table.rows)[:1]], 0.2)
    follow = follower(mirror, table)
    follow.begin_comparison()
    table.read = 0
    shares = []
    while (step := follow.compare()) is not None:
        shares.append(step.share)
    assert content(mirror) == table.rows
    assert 0 < table.read <= 2 * 8
    assert (shares, shares[-1]) == (sorted(shares), 1.0)
    assert mirror.progress().verified == 5000.0


def test_a_comparison_goes_on_where_it_was_interrupted(mirror: Mirror) -> None:
    table = Table(100)
    bring_up(mirror, table)
    follow = follower(mirror, table)
    follow.begin_comparison()
    for _ in range(5):
        follow.compare()
    reached = mirror.progress().compared
    assert reached
    follow.begin_comparison()
    assert mirror.progress().compared == reached


def test_what_cannot_be_caught_up_is_found_by_a_comparison_that_begins_by_itself(mirror: Mirror) -> None:
    table = Table(100)
    bring_up(mirror, table)
    seen = mirror.progress().seen
    table.put(500)
    table.remove(7)
    table.forget()
    mirror.update(seen=1.0)
    follow = follower(mirror, table)
    follow.catch_up()
    progress = mirror.progress()
    assert (progress.behind, progress.compared) == (True, "")
    table.put(501)
    assert follow.catch_up().applied.changed == 1
    assert mirror.progress().seen == 1.0, "not up to date before the comparison has ended"
    while follow.compare() is not None:
        pass
    assert content(mirror) == table.rows
    follow.catch_up()
    assert (mirror.progress().behind, mirror.progress().seen) == (False, seen)


def test_a_change_between_catching_up_and_comparing_is_no_difference(mirror: Mirror) -> None:
    table = Table(20)
    bring_up(mirror, table)
    follow = follower(mirror, table)
    follow.begin_comparison()
    table.put(30)
    table.read = 0
    while follow.compare() is not None:
        pass
    assert (content(mirror), table.read) == (table.rows, 0)


def test_what_is_caught_up_amidst_a_comparison_is_told_with_it(mirror: Mirror) -> None:
    table = Table(40)
    bring_up(mirror, table)
    follow = follower(mirror, table)
    follow.begin_comparison()
    table.put(100)
    table.put(101)
    table.remove(3)
    done = []
    while (step := follow.compare()) is not None:
        done.append(step.applied)
    assert content(mirror) == table.rows
    assert (sum(each.changed for each in done), sum(each.lost for each in done)) == (2, 1)


@pytest.mark.parametrize("how", ["removed", "switched off", "found by a comparison"])
def test_a_table_that_shrinks_too_much_leaves_the_replica_as_it_is(mirror: Mirror, how: str) -> None:
    table = Table(40)
    bring_up(mirror, table)
    before = content(mirror)
    for number in range(20):
        if how == "switched off":
            table.put(number, enabled=False)
        else:
            table.remove(number)
    if how == "found by a comparison":
        table.forget()
    bring_up(mirror, table)
    assert content(mirror) == before
    assert mirror.progress().held == 20
    table.put(1000)
    assert follower(mirror, table).catch_up().applied.changed == 1, "what is added still comes"
    assert mirror.accept() == 20
    assert content(mirror) == table.rows


def test_losses_that_a_comparison_finds_are_weighed_at_its_end_whatever_changes_meanwhile(
    mirror: Mirror,
) -> None:
    table = Table(40)
    bring_up(mirror, table)
    before = content(mirror)
    for number in range(20):
        table.remove(number)
    table.forget()
    follow = follower(mirror, table)
    for number in range(40):
        follow.catch_up()
        table.put(1000 + number)
        if follow.compare() is None:
            break
    assert before.items() <= content(mirror).items()
    assert mirror.progress().held == 20


def test_after_a_refused_shrink_the_next_comparison_still_weighs_against_what_there_was(
    mirror: Mirror,
) -> None:
    table = Table(40)
    bring_up(mirror, table)
    for number in range(20):
        table.remove(number)
    for _ in range(3):
        follower(mirror, table).begin_comparison()
        bring_up(mirror, table)
    assert (len(content(mirror)), mirror.progress().held) == (40, 20)


def test_a_held_loss_that_came_back_unnoticed_is_none_after_the_next_comparison(mirror: Mirror) -> None:
    table = Table(40)
    bring_up(mirror, table)
    for number in range(20):
        table.remove(number)
    follower(mirror, table).catch_up()
    assert mirror.progress().held == 20
    for number in range(20):
        table.put(number)
    table.forget()
    bring_up(mirror, table)
    mirror.accept()
    assert content(mirror) == table.rows
    assert (len(table.rows), mirror.progress().held) == (40, 0)


def test_a_frozen_replica_does_not_move_and_loses_nothing_by_it(mirror: Mirror) -> None:
    table = Table(40)
    bring_up(mirror, table)
    before = content(mirror)
    mirror.freeze(1.0)
    table.put(100)
    table.remove(3)
    follower(mirror, table).begin_comparison()
    assert follower(mirror, table).catch_up().applied.frozen
    assert follower(mirror, table).compare() is None
    assert content(mirror) == before
    mirror.thaw()
    follower(mirror, table).catch_up()
    assert content(mirror) == table.rows


def test_a_range_that_differs_and_is_frozen_while_it_is_compared_is_compared_again(mirror: Mirror) -> None:
    table = Table(40)
    bring_up(mirror, table)
    mirror.apply([(min(table.rows), b"\x10\0\0other")], 0.2)
    look = table.digest

    def pinned(after: bytes = b"") -> Digest:
        mirror.freeze(1.0)
        return look(after)

    with pytest.MonkeyPatch.context() as meanwhile:
        meanwhile.setattr(table, "digest", pinned)
        follow = follower(mirror, table)
        follow.begin_comparison()
        assert follow.compare() is None
    assert content(mirror) != table.rows
    mirror.thaw()
    while follow.compare() is not None:
        pass
    assert content(mirror) == table.rows


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.integers(0, 2**32))
def test_broken_off_at_any_call_it_ends_up_with_what_the_source_has(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    source = random.Random(seed)
    mirror, table = Mirror(tmp_path_factory.mktemp("mirror")), Table(60)
    for _ in range(12):
        table.calls_left = source.randrange(0, 30)
        with contextlib.suppress(SourceError):
            bring_up(mirror, table)
        for number in source.sample(range(70), 2):
            source.choice([table.put, table.remove])(number)
        if source.random() < 0.2:
            table.forget()
        if source.random() < 0.2:
            follower(mirror, table).begin_comparison()
    table.calls_left = 10**9
    bring_up(mirror, table)
    mirror.accept()
    assert content(mirror) == table.rows
    mirror.close()
