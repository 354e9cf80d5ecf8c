"""The flags beside the records say what the records say, whoever changed these, and however that ended."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.domains.flags import FLAGS, HEAD, Flags
from mxweir.domains.match import State, digest, find
from mxweir.domains.reader import HERE, POSTGRES, RECORDS, TableReader
from mxweir.domains.record import FROM_COMMAND, FROM_FILE, FROM_POSTGRES, Record
from mxweir_policyd.relaydomains import flagging
from mxweir_policyd.relaydomains.index import Index
from mxweir_policyd.relaydomains.mirror import Item, Mirror
from mxweir_policyd.relaydomains.replica import Replica, ShrinkError

NAMES = [f"{sub}d{number}.example" for number in range(4) for sub in ("", "sub.")]

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "replace"]),
        st.sampled_from([FROM_FILE, FROM_COMMAND]),
        st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=4),
    ),
    max_size=6,
)
ROWS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["plain", "wide", "off", "wide and off", "gone"])),
        max_size=4,
    ),
    max_size=6,
)
OFTEN = settings(
    max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def change(replica: Replica, how: str, origin: int, what: Iterable[tuple[str, bool]]) -> None:
    records = [Record(name, include_subdomains=wide, origins=origin) for name, wide in what]
    if how == "add":
        replica.add(records, origin)
    elif how == "remove":
        for record in records:
            replica.remove(record.domain, origin)
    else:
        replica.replace(origin, {record.domain: record for record in records}, 1.0)


def item(name: str, kind: str) -> Item:
    record = Record(name, "", "wide" in kind, FROM_POSTGRES, "off" not in kind)
    return digest(name), None if kind == "gone" else record.encode()


def by_flags(replica: Replica) -> list[State | None]:
    """What the flags alone say of each name."""
    with replica._environment.begin(buffers=True) as read:
        return [replica._flags.state(read, name) for name in NAMES]


def write_as_before(path: Path, *records: Record, name: bytes | None = None) -> None:
    """What was done before there were flags."""
    with lmdb.open(str(path), subdir=False, map_size=2**24, max_dbs=1) as environment:
        database = environment.open_db(name) if name else None
        with environment.begin(write=True, db=database) as write:
            for record in records:
                write.put(digest(record.domain), record.encode())


@OFTEN
@given(CHANGES)
def test_a_table_of_this_host_answers_as_its_records_do(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, list[tuple[str, bool]]]]
) -> None:
    with closing(Replica(tmp_path_factory.mktemp("table"))) as replica:
        for step in changes:
            change(replica, *step)
            assert [replica.ask(name) for name in NAMES] == [replica.find(name).state for name in NAMES]
            assert replica.count() == len(list(replica.records()))


@OFTEN
@given(ROWS)
def test_a_replica_answers_by_its_flags_as_its_records_do(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, str]]]
) -> None:
    with closing(Mirror(tmp_path_factory.mktemp("table"))) as mirror:
        flags = Flags()
        for batch in batches:
            mirror.apply([item(*row) for row in batch], 1.0)
            with mirror._environment.begin(db=mirror._records) as read:
                wanted = [find(name, read.get).state for name in NAMES]
            with mirror._environment.begin(db=mirror._flags, buffers=True) as read:
                said = [flags.state(read, name) for name in NAMES]
            assert [each is State.OURS for each in said] == [each is State.OURS for each in wanted]


def test_a_host_that_follows_asks_both_tables(tmp_path: Path) -> None:
    kinds = ["plain", "off", "wide", "gone", "wide and off", "plain", "gone", "gone"]
    with closing(Mirror(tmp_path)) as mirror:
        mirror.apply([item(name, kind) for name, kind in zip(NAMES, kinds, strict=True)], 1.0)
    with (
        closing(Replica(tmp_path)) as here,
        closing(TableReader(tmp_path / POSTGRES, RECORDS)) as reader,
    ):
        here.add([Record("sub.d1.example"), Record("sub.d3.example")], FROM_COMMAND)
        index = Index(here, reader)
        assert [reader.knows(name) for name in NAMES] == [True, False, True, True, False, True, False, False]
        assert [index.state(name) for name in NAMES] == [index.find(name).state for name in NAMES]


def test_a_fill_is_known_by_its_flags_and_a_new_one_forgets_them(tmp_path: Path) -> None:
    with closing(Mirror(tmp_path)) as mirror:
        mirror.begin(("here/1", "1", 0.0))
        mirror.fill(sorted((key, raw) for key, raw in (item(name, "plain") for name in NAMES[:4]) if raw))
    with closing(TableReader(tmp_path / POSTGRES, RECORDS)) as reader:
        assert [reader.knows(name) for name in NAMES] == [True] * 4 + [False] * 4
    with closing(Mirror(tmp_path)) as mirror:
        mirror.begin(("here/1", "1", 0.0))
    with closing(TableReader(tmp_path / POSTGRES, RECORDS)) as reader:
        assert not any(reader.knows(name) for name in NAMES)


def test_no_record_is_read_for_a_name_unless_one_includes_subdomains(tmp_path: Path) -> None:
    with closing(Replica(tmp_path)) as replica:
        assert by_flags(replica) == [None] * 8
        replica.add([Record(name) for name in NAMES[:4]], FROM_COMMAND)
        assert by_flags(replica) == [State.OURS] * 4 + [State.NOT_OURS] * 4
        replica.add([Record("d3.example", include_subdomains=True)], FROM_COMMAND)
        assert by_flags(replica) == [State.OURS] * 4 + [State.NOT_OURS] * 2 + [State.OURS] * 2
        for name in NAMES:
            replica.remove(name, FROM_COMMAND)
        assert by_flags(replica) == [State.OFF] * 8
        assert (replica.count(), replica.off()) == (0, True)


def test_a_change_by_another_process_is_in_force_at_the_next_lookup(tmp_path: Path) -> None:
    add = (
        "import sys, pathlib; from mxweir.domains.record import Record;"
        "from mxweir_policyd.relaydomains.replica import Replica;"
        "Replica(pathlib.Path(sys.argv[1])).add([Record(sys.argv[2])], 2)"
    )
    with closing(Replica(tmp_path)) as replica:
        for name in NAMES[:2]:
            assert replica.ask(name) is not State.OURS
            subprocess.run([sys.executable, "-P", "-c", add, str(tmp_path), name], check=True)
            assert replica.ask(name) is State.OURS


def test_a_file_written_over_this_one_is_asked_from_the_next_tick_though_it_counts_its_changes_alike(
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    with closing(Replica(tmp_path / "other")) as other:
        other.replace(FROM_FILE, {f"o{n}.example": Record(f"o{n}.example") for n in range(3000)}, 1.0)
    with closing(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, {f"d{n}.example": Record(f"d{n}.example") for n in range(200)}, 1.0)
        assert all(replica.ask(f"d{n}.example") is State.OURS for n in range(200))
        replica.tick()
        shutil.copyfile(other.path, replica.path)
        replica.tick()
        assert not any(replica.displaced() for _ in range(3))
        assert all(replica.ask(f"o{n}.example") is State.OURS for n in range(3000))
        assert replica.ask("d1.example") is State.NOT_OURS


def test_a_table_of_former_times_answers_and_is_completed(tmp_path: Path) -> None:
    write_as_before(tmp_path / HERE, *map(Record, NAMES[:4]))
    with closing(Replica(tmp_path)) as replica:
        assert by_flags(replica) == [None] * 8
        assert [replica.ask(name) is State.OURS for name in NAMES] == [True] * 4 + [False] * 4
        replica.complete()
        assert by_flags(replica) == [State.OURS] * 4 + [State.NOT_OURS] * 4
        assert replica.count() == 4


def test_a_replica_of_former_times_answers_and_is_completed_by_its_writer(tmp_path: Path) -> None:
    rows = [Record(name, origins=FROM_POSTGRES) for name in NAMES[:4]]
    write_as_before(tmp_path / POSTGRES, *rows, name=RECORDS)
    with closing(TableReader(tmp_path / POSTGRES, RECORDS)) as reader:
        assert [reader.find(name).state is State.OURS for name in NAMES] == [True] * 4 + [False] * 4
        make = "import sys, pathlib; from mxweir_policyd.relaydomains.mirror import Mirror;"
        make += "Mirror(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-P", "-c", make, str(tmp_path)], check=True)
        assert not reader.knows(NAMES[0])
        reader.tick()
        assert [reader.knows(name) for name in NAMES] == [True] * 4 + [False] * 4


def damage(path: Path, name: str) -> None:
    """Let a bit of the domain's flags be another one, and not that of its record."""
    content, key = bytearray(path.read_bytes()), digest(name)
    found = [match.start() for match in re.finditer(re.escape(key[2:12]), bytes(content))]
    flags = [at for at in found if content[at - 2 : at] != key[:2]]
    assert flags
    for at in flags:
        content[at] ^= 1
    path.write_bytes(content)


def test_flags_that_are_damaged_are_made_anew_from_the_records(tmp_path: Path) -> None:
    table = {name: Record(name, include_subdomains=True) for name in NAMES}
    with closing(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, table, 1.0)
        assert not replica.complete()
    damage(tmp_path / HERE, NAMES[2])
    with closing(Replica(tmp_path)) as replica:
        assert replica.ask(NAMES[2]) is State.NOT_OURS
        replica.add([Record("another.example")], FROM_COMMAND)
        assert replica.complete()
        assert by_flags(replica) == [State.OURS] * 8
        assert replica.count() == 9
        assert not replica.complete()


def test_a_replica_whose_flags_are_damaged_has_them_made_anew_by_its_writer(tmp_path: Path) -> None:
    with closing(Mirror(tmp_path)) as mirror:
        mirror.apply([item(name, "plain") for name in NAMES], 1.0)
    damage(tmp_path / POSTGRES, NAMES[2])
    for known in (False, True):
        with closing(TableReader(tmp_path / POSTGRES, RECORDS)) as reader:
            assert reader.knows(NAMES[2]) is known
        Mirror(tmp_path).close()


def test_flags_with_another_head_are_not_asked_and_are_made_anew(tmp_path: Path) -> None:
    with closing(Replica(tmp_path)) as replica:
        replica.add([Record(name) for name in NAMES], FROM_COMMAND)
        with replica._environment.begin(write=True) as write:
            write.put(HEAD, (write.get(HEAD) or b"")[:12])
        assert by_flags(replica) == [None] * 8
        assert replica.count() == 8
        assert all(replica.ask(name) is State.OURS for name in NAMES)
        replica.remove(NAMES[0], FROM_COMMAND)
        assert by_flags(replica) == [State.NOT_OURS] + [State.OURS] * 7


@pytest.mark.parametrize("after", range(4))
def test_killed_at_any_instant_the_flags_are_those_of_the_records(tmp_path: Path, after: int) -> None:
    on_and_on = (
        "import sys, pathlib; from mxweir.domains.record import Record;"
        "from mxweir_policyd.relaydomains.replica import Replica;"
        "replica = Replica(pathlib.Path(sys.argv[1]));"
        "tables = [{f'{b}{n}.example': Record(f'{b}{n}.example') for n in range(300)} for b in 'ab'];"
        "[(replica.replace(1, table, 1.0), print(flush=True)) for _ in range(10**6) for table in tables]"
    )
    command = [sys.executable, "-P", "-c", on_and_on, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(1 + after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with closing(Replica(tmp_path)) as replica:
        known = {record.domain for record in replica.records()}
        assert len(known) == replica.count() == 300
        for name in (f"{begin}{number}.example" for begin in "ab" for number in range(300)):
            assert replica.ask(name) is (State.OURS if name in known else State.NOT_OURS)


def test_a_change_that_fails_changes_no_flags(tmp_path: Path) -> None:
    with closing(Replica(tmp_path)) as replica:
        replica.add([Record(name) for name in NAMES], FROM_COMMAND)
        with pytest.raises(ShrinkError):
            replica.replace(FROM_COMMAND, {}, 0.5)
        assert by_flags(replica) == [State.OURS] * 8


def test_a_change_that_says_nothing_new_writes_nothing(tmp_path: Path) -> None:
    with closing(Replica(tmp_path)) as replica:
        replica.add([Record(NAMES[0])], FROM_COMMAND)
        before = replica._environment.info()["last_txnid"]
        replica.add([Record(NAMES[0])], FROM_COMMAND)
        replica.complete()
        assert replica._environment.info()["last_txnid"] == before


def test_many_changes_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagging, "_MOST", 7)
    monkeypatch.setattr(flagging, "_PIECE", 5)
    names = [f"d{number}.example" for number in range(100)]
    write_as_before(tmp_path / HERE, *map(Record, names[:60]))
    with closing(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, {name: Record(name) for name in names}, 1.0)
        assert all(replica.ask(name) is State.OURS for name in names)
        assert replica.count() == 100


def test_a_domain_of_the_table_of_this_host_never_stands_for_a_chunk(tmp_path: Path) -> None:
    with closing(Replica(tmp_path)) as replica:
        replica.add([Record(name) for name in NAMES], FROM_COMMAND)
    with closing(TableReader(tmp_path / HERE)) as reader:
        assert sorted(key for key, _ in reader.scan(b"", 100)) == sorted(map(digest, NAMES))
        assert reader.count() == len(NAMES)
    with (
        lmdb.open(str(tmp_path / HERE), subdir=False, readonly=True) as environment,
        environment.begin() as read,
    ):
        assert read.get(HEAD) is not None
        assert read.get(FLAGS) is None
