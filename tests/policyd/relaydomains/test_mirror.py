"""The replica of PostgreSQL's table, as its writer keeps it: against a model, killed, on a full disk."""

import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.domains.match import State, digest
from mxweir.domains.reader import POSTGRES, RECORDS, TableReader
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_policyd.relaydomains.mirror import Applied, Mirror
from mxweir_policyd.relaydomains.progress import Progress
from mxweir_policyd.relaydomains.tablefile import ReplicaError

FIRST = bytes(0)
LAST = b"\xff" * 32


def item(number: int, alive: bool = True, hop: str = "") -> tuple[bytes, bytes]:
    record = Record(f"d{number}.example", hop, False, FROM_POSTGRES, alive, "tenant")
    return digest(record.domain), record.encode()


def gone(number: int) -> tuple[bytes, None]:
    return digest(f"d{number}.example"), None


def filled(mirror: Mirror, count: int) -> None:
    mirror.begin(("here/1", "3", 0.0))
    mirror.fill(sorted(item(number) for number in range(count)))
    mirror.update(filled=True)


def content(mirror: Mirror) -> dict[bytes, bytes]:
    return dict(mirror._between(FIRST, LAST))


def checksum(items: dict[bytes, bytes]) -> bytes:
    return hashlib.sha256(b"".join(key + items[key] for key in sorted(items))).digest()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    opened = Mirror(tmp_path)
    yield opened
    opened.close()


def test_a_new_one_has_come_nowhere(mirror: Mirror) -> None:
    assert mirror.progress() == Progress()
    assert not mirror.frozen()


def test_a_first_fill_says_with_each_batch_how_far_it_has_come(mirror: Mirror) -> None:
    mirror.begin(("here/1", "77", 12.0))
    rows = sorted(item(number, alive=number % 4 > 0) for number in range(100))
    assert mirror.fill(rows[:60]).cursor == rows[59][0].hex()
    progress = mirror.fill(rows[60:])
    assert (progress.live, progress.baseline, progress.filled) == (75, 75, False)
    assert progress.point == ("here/1", "77", 12.0)
    assert content(mirror) == dict(rows)


READING = """
import sys
from pathlib import Path
from mxweir.domains.reader import DomainReader
found = DomainReader(Path(sys.argv[1])).find("d3.example")
print(found.state.name, found.tenant)
"""


def test_what_it_has_is_read_by_other_processes_from_then_on(mirror: Mirror, tmp_path: Path) -> None:
    reader = subprocess.run(
        [sys.executable, "-P", "-c", READING, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert reader.stdout == "NOT_OURS \n", reader.stderr
    filled(mirror, 10)
    again = subprocess.run(reader.args, capture_output=True, text=True, check=False)
    assert again.stdout == "OURS tenant\n", again.stderr


def test_a_change_takes_in_what_is_new_and_tells_how_many_it_changed(mirror: Mirror) -> None:
    filled(mirror, 10)
    applied = mirror.apply([item(3), item(4, hop="smtp:x"), item(10), gone(9), gone(99)], 0.2, seen=5.0)
    assert applied == Applied(changed=2, lost=1)
    progress = mirror.progress()
    assert (progress.live, progress.baseline, progress.seen) == (10, 11, 5.0)
    assert content(mirror)[item(4)[0]] == item(4, hop="smtp:x")[1]


def test_losses_above_max_shrink_are_held_and_nothing_is_lost(mirror: Mirror) -> None:
    filled(mirror, 10)
    before = content(mirror)
    applied = mirror.apply([gone(n) for n in range(3)] + [item(20)], 0.2)
    assert applied == Applied(changed=1, lost=0, held=3)
    assert content(mirror) == before | dict([item(20)])
    assert mirror.progress().held == 3


def test_domains_that_are_switched_off_are_losses_too(mirror: Mirror) -> None:
    filled(mirror, 10)
    assert mirror.apply([item(n, alive=False) for n in range(3)], 0.2).held == 3
    assert mirror.accept() == 3
    assert content(mirror)[item(0)[0]] == item(0, alive=False)[1]
    assert mirror.progress().live == 7


def test_losses_in_several_batches_are_weighed_together(mirror: Mirror) -> None:
    filled(mirror, 10)
    for number in range(6):
        assert mirror.apply([gone(number)], 0.2, settle=False) == Applied()
    assert mirror.apply([], 0.2) == Applied(held=6)
    assert len(content(mirror)) == 10


def test_losses_one_by_one_are_weighed_against_what_there_was_at_the_last_full_comparison(
    mirror: Mirror,
) -> None:
    filled(mirror, 10)
    outcomes = [mirror.apply([gone(number)], 0.2) for number in range(4)]
    assert [(o.lost, o.held) for o in outcomes] == [(1, 0), (1, 0), (0, 1), (0, 2)]


def test_what_is_held_is_carried_out_when_it_is_accepted_and_not_before(mirror: Mirror) -> None:
    filled(mirror, 10)
    mirror.apply([gone(number) for number in range(8)], 0.2)
    assert mirror.apply([], 0.2).held == 8
    assert mirror.accept() == 8
    progress = mirror.progress()
    assert (progress.live, progress.baseline, progress.held) == (2, 2, 0)
    assert len(content(mirror)) == 2


def test_held_losses_that_come_back_are_no_losses(mirror: Mirror) -> None:
    filled(mirror, 10)
    mirror.apply([gone(number) for number in range(8)], 0.2)
    assert mirror.apply([item(number) for number in range(7)], 0.2) == Applied(lost=1)
    assert mirror.progress().held == 0
    assert len(content(mirror)) == 9


def test_a_frozen_one_takes_no_change_and_goes_on_where_it_was_when_it_thaws(mirror: Mirror) -> None:
    filled(mirror, 10)
    before = content(mirror), mirror.progress()
    mirror.freeze(1000.0)
    mirror.freeze(2000.0)
    assert mirror.apply([item(20), gone(1)], 0.2, seen=7.0) == Applied(frozen=True)
    assert (content(mirror), mirror.progress()) == before
    assert (mirror.thaw(), mirror.thaw(), mirror.frozen()) == (True, False, False)
    assert mirror.apply([item(20), gone(1)], 0.2).changed == 1


def test_it_stays_frozen_when_it_is_opened_again(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    mirror.freeze(1000.0)
    mirror.close()
    again = Mirror(tmp_path, mend=True)
    assert again.frozen()
    again.close()


def test_a_range_agrees_with_the_checksum_of_what_is_in_it_and_with_no_other(mirror: Mirror) -> None:
    filled(mirror, 50)
    rows = content(mirror)
    keys = sorted(rows)
    part = {key: rows[key] for key in keys[10:31]}
    assert mirror.agrees(FIRST, LAST, checksum(rows))
    assert mirror.agrees(keys[9], keys[30], checksum(part))
    assert not mirror.agrees(keys[8], keys[30], checksum(part))
    assert not mirror.agrees(keys[9], keys[29], checksum(part))
    assert mirror.agrees(keys[-1], LAST, checksum({}))
    assert mirror.keys(keys[9], keys[30]) == set(part)


numbers = st.integers(0, 30)
steps = st.lists(
    st.tuples(
        st.lists(st.tuples(numbers, st.sampled_from(["on", "off", "gone", "hop"])), max_size=8), st.booleans()
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
@given(steps)
def test_whatever_the_changes_it_has_what_was_said_last_but_for_losses_that_wait(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[list[tuple[int, str]], bool]]
) -> None:
    mirror = Mirror(tmp_path_factory.mktemp("mirror"))
    filled(mirror, 20)
    truth = dict(item(number) for number in range(20))
    for batch, settle in changes:
        items: list[tuple[bytes, bytes | None]] = []
        for number, what in batch:
            key, raw = item(number, what != "off", "smtp:x" if what == "hop" else "")
            items.append((key, None if what == "gone" else raw))
            truth.pop(key, None)
            if what != "gone":
                truth[key] = raw
        mirror.apply(items, 0.2, settle)
        kept = content(mirror)
        assert truth.keys() - kept.keys() == set()
        live = sum(not raw[0] & 64 for raw in kept.values())
        progress = mirror.progress()
        assert (progress.live, progress.baseline >= live) == (live, True)
        assert live >= progress.baseline * 0.8
    mirror.accept()
    assert content(mirror) == truth
    mirror.close()


# What goes wrong

CHANGING_ON_AND_ON = """
import sys
from pathlib import Path
from mxweir.domains.match import digest
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_policyd.relaydomains.mirror import Mirror
mirror = Mirror(Path(sys.argv[1]))
names = [f"d{n}.example" for n in range(3000)]
round = mirror.progress().seen
while True:
    round += 1
    rows = [Record(name, f"smtp:{round:.0f}", False, FROM_POSTGRES) for name in names]
    mirror.apply([(digest(row.domain), row.encode()) for row in rows], 0.2, seen=round)
    print(round, flush=True)
"""


def generation(directory: Path) -> tuple[set[str], float]:
    mirror = Mirror(directory)
    try:
        hops = {Record.decode(raw).next_hop for raw in content(mirror).values()}
        return hops, mirror.progress().seen
    finally:
        mirror.close()


def test_killed_at_any_instant_it_has_the_old_state_or_the_new_and_never_half(tmp_path: Path) -> None:
    source = random.Random()
    for _ in range(8):
        argv = [sys.executable, "-P", "-c", CHANGING_ON_AND_ON, str(tmp_path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(source.randrange(1, 4)):
                assert writer.stdout.readline()
            # Somewhere in the next change.
            try:
                writer.wait(source.random() * 0.03)
            except subprocess.TimeoutExpired:
                writer.kill()
        hops, seen = generation(tmp_path)
        assert hops == {f"smtp:{seen:.0f}"}


FULL = """
import resource, signal, sys
from pathlib import Path
from mxweir.domains.match import digest
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.tablefile import ReplicaError
mirror = Mirror(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = mirror.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
def rows(hop):
    found = (Record(f"d{n}.example", hop, False, FROM_POSTGRES) for n in range(int(sys.argv[3])))
    return [(digest(row.domain), row.encode()) for row in found]
try:
    mirror.apply(rows("smtp:full"), 0.2, seen=2.0)
except ReplicaError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 4096, 65536, 200_000])
def test_on_a_full_disk_it_keeps_the_old_state_and_says_so(tmp_path: Path, room: int) -> None:
    mirror = Mirror(tmp_path)
    rows = [Record(f"d{n}.example", "smtp:old", False, FROM_POSTGRES) for n in range(5000)]
    mirror.apply([(digest(row.domain), row.encode()) for row in rows], 0.2, seen=1.0)
    mirror.close()
    argv = [sys.executable, "-P", "-c", FULL, str(tmp_path), str(room), "20000"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "not changed" in done.stdout, done.stderr
    assert generation(tmp_path) == ({"smtp:old"}, 1.0)


def test_the_disk_being_full_before_there_is_a_table_leaves_none_that_looks_damaged(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from mxweir_policyd.relaydomains.mirror import Mirror;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)); Mirror(Path(sys.argv[1]))"
    )
    argv = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "ReplicaError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == limit
    Mirror(tmp_path).close()


def damaged(directory: Path) -> None:
    mirror = Mirror(directory)
    filled(mirror, 3000)
    mirror.close()
    path = directory / POSTGRES
    os.truncate(path, path.stat().st_size // 2)


def test_a_damaged_one_is_put_aside_by_its_follower_and_begun_anew(tmp_path: Path) -> None:
    damaged(tmp_path)
    mirror = Mirror(tmp_path, mend=True)
    assert mirror.put_aside == tmp_path / "postgres.broken"
    assert mirror.progress() == Progress()
    mirror.close()


def test_one_that_was_overwritten_is_put_aside_and_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    with closing(Mirror(tmp_path / "backup")) as backup:
        filled(backup, 50)
    with closing(Mirror(tmp_path)) as mirror:
        mirror.check_place()
        shutil.copyfile(backup.path, mirror.path)
        mirror.check_place()
        with pytest.raises(
            ReplicaError, match=r"was overwritten; kept as .*postgres.broken, and filled anew"
        ):
            mirror.check_place()
    with closing(Mirror(tmp_path)) as anew:
        assert anew.progress() == Progress()


def test_a_damaged_one_is_left_to_the_follower_by_everybody_else(tmp_path: Path) -> None:
    damaged(tmp_path)
    with pytest.raises(ReplicaError, match="is damaged"):
        Mirror(tmp_path)
    reader = TableReader(tmp_path / POSTGRES, RECORDS)
    assert (reader.there, reader.find("d1.example").state) == (False, State.FAILED)
    reader.close()


def changed(mirror: Mirror, directory: Path, after: int) -> list[tuple[int, str]]:
    """The journal, as another process reads it; the mirror is closed for it."""
    mirror.close()
    with closing(TableReader(directory / POSTGRES, RECORDS)) as reader:
        found = reader.journal(after, 1000)
        assert reader.last_change() == (found[-1][0] if found else after)
        return found


def test_the_journal_names_each_domain_whose_record_changed(tmp_path: Path, mirror: Mirror) -> None:
    filled(mirror, 10)
    start = changed(mirror, tmp_path, 0)[-1][0]
    mirror = Mirror(tmp_path)
    mirror.apply([item(3, hop="smtp:a"), gone(4), item(5)], 1.0)
    mirror.apply([item(77)], 1.0)
    expected = [(start + 1, "d3.example"), (start + 2, "d4.example"), (start + 3, "d77.example")]
    assert changed(mirror, tmp_path, start) == expected
    assert changed(Mirror(tmp_path), tmp_path, start + 2) == expected[2:]


def test_the_journal_is_bounded_and_its_numbers_show_where_it_lacks_something(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.relaydomains.journaling.LENGTH", 5)
    filled(mirror, 1)
    start = changed(mirror, tmp_path, 0)[-1][0]
    mirror = Mirror(tmp_path)
    mirror.apply([item(number) for number in range(10, 20)], 1.0)
    late = changed(mirror, tmp_path, start)
    assert [number for number, _ in late] == list(range(start + 6, start + 11))
    mirror = Mirror(tmp_path)
    filled(mirror, 3)
    assert [number for number, _ in changed(mirror, tmp_path, start + 10)] == [start + 16]


@pytest.mark.parametrize("damaged", [b"", b"\x10d1.example", b"\x10\xff\0\0d1.example"])
def test_a_record_that_was_damaged_on_the_disk_is_changed_and_removed_like_any_other(
    tmp_path: Path, mirror: Mirror, damaged: bytes
) -> None:
    filled(mirror, 10)
    for change in (item(1, hop="smtp:new"), gone(1)):
        with mirror._writing() as write:
            write.put(digest("d1.example"), damaged, db=mirror._records)
        assert mirror.apply([change, item(10)], 1.0).held == 0
        assert content(mirror).get(change[0]) == change[1]
    with mirror._writing() as write:
        write.put(digest("d2.example"), damaged, db=mirror._records)
    before = changed(mirror, tmp_path, 0)[-1][0]
    mirror = Mirror(tmp_path)
    mirror.apply([gone(2)], 1.0)
    assert changed(mirror, tmp_path, before)[0][0] > before + 1  # whoever follows it looks at all again
