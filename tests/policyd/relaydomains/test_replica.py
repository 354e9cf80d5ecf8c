import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.domains.match import Match, State
from mxweir.domains.record import FROM_COMMAND, FROM_FILE, Record
from mxweir_policyd.relaydomains.replica import Changed, Replica, ShrinkError
from mxweir_policyd.relaydomains.tablefile import ReplicaError

BOTH = FROM_FILE | FROM_COMMAND


def records(*names: str, origin: int = FROM_FILE) -> dict[str, Record]:
    """Records by their domain; a name with a leading dot includes its subdomains."""
    found = [Record(name.removeprefix("."), "", name.startswith("."), origin) for name in names]
    return {record.domain: record for record in found}


def numbered(count: int, begin: str = "d") -> dict[str, Record]:
    return records(*(f"{begin}{number}.example" for number in range(count)))


def names(replica: Replica) -> set[str]:
    return {record.domain for record in replica.records()}


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    opened = Replica(tmp_path)
    yield opened
    opened.close()


BEGIN = """
import os, signal, sys
from pathlib import Path
from mxweir.domains.record import FROM_COMMAND, FROM_FILE, Record
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.relaydomains.tablefile import ReplicaError
replica = Replica(Path(sys.argv[1]))
"""

CHANGING_ON_AND_ON = """
tables = [{f"{begin}{n}.example": Record(f"{begin}{n}.example") for n in range(2000)} for begin in "ab"]
while True:
    for table in tables:
        replica.replace(FROM_FILE, table, 1.0)
        print(flush=True)
"""


@contextmanager
def another_process(code: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run code with `replica` open there, until the end of the `with` at the latest."""
    command = [sys.executable, "-P", "-c", BEGIN + code, str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0) as process:
        try:
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def closed(replica: Replica) -> Iterator[Replica]:
    """Close it at the end."""
    try:
        yield replica
    finally:
        replica.close()


# Asking


def test_a_new_table_knows_nothing_and_says_that_the_check_is_off(replica: Replica) -> None:
    assert replica.count() == 0
    assert replica.find("example.org") == Match(State.OFF)
    assert replica.state("example.org") is State.OFF


def test_a_domain_in_the_table_is_ours_and_any_other_is_not(replica: Replica) -> None:
    replica.replace(FROM_FILE, records("example.org", ".tree.example"), 0.2)
    asked = ("example.org", "tree.example", "a.tree.example", "a.example.org", "foreign.example", "")
    assert [replica.find(name).state is State.OURS for name in asked] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert [replica.state(name) is State.OURS for name in asked] == [True, True, True, False, False, False]


def test_a_removed_domain_is_refused_after_the_next_tick_at_the_latest(replica: Replica) -> None:
    replica.replace(FROM_FILE, records("example.org", "example.net"), 0.2)
    assert replica.state("example.org") is State.OURS
    replica.replace(FROM_FILE, records("example.net"), 1.0)
    replica.tick()
    assert replica.state("example.org") is State.NOT_OURS


def test_an_added_domain_is_ours_at_once(replica: Replica) -> None:
    replica.add(records("example.net").values(), FROM_COMMAND)
    assert replica.state("example.org") is State.NOT_OURS
    replica.add(records("example.org").values(), FROM_COMMAND)
    assert replica.state("example.org") is State.OURS


def test_a_table_that_cannot_be_read_says_so_and_raises_nothing(replica: Replica) -> None:
    replica.add(records("example.org").values(), FROM_COMMAND)
    replica.close()
    assert replica.find("example.org") == Match(State.FAILED)
    assert replica.state("foreign.example") is State.FAILED


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    opened = Replica(tmp_path_factory.mktemp("filled"))
    opened.replace(FROM_FILE, records("example.org", ".tree.example"), 1.0)
    yield opened
    opened.close()


@given(st.text(max_size=400) | st.text(alphabet="\0\ud800.a", max_size=20))
def test_a_lookup_never_raises_whatever_the_name(filled: Replica, domain: str) -> None:
    assert filled.find(domain).state in (State.OURS, State.NOT_OURS)
    assert filled.state(domain) is filled.find(domain).state


def test_what_is_remembered_between_two_ticks_is_bounded(replica: Replica) -> None:
    replica.replace(FROM_FILE, records(".example.org"), 1.0)
    for number in range(20_000):
        assert replica.state(f"a{number}.example.org") is State.OURS
    assert len(replica.ours) <= 16_384


# Changing


def test_replacing_tells_what_came_went_and_is_there(replica: Replica) -> None:
    assert replica.replace(FROM_FILE, numbered(10), 0.2) == Changed(10, 0, 10)
    assert replica.replace(FROM_FILE, numbered(10), 0.2) == Changed(0, 0, 10)
    fewer = records(*list(numbered(9)), "new.example")
    assert replica.replace(FROM_FILE, fewer, 0.2) == Changed(1, 1, 10)


def test_a_changed_next_hop_takes_effect(replica: Replica) -> None:
    replica.replace(FROM_FILE, {"example.org": Record("example.org", "one:", origins=FROM_FILE)}, 0.2)
    replica.replace(FROM_FILE, {"example.org": Record("example.org", "two:", True, FROM_FILE)}, 0.2)
    assert replica.get("example.org") == Record("example.org", "two:", True, FROM_FILE)


@pytest.mark.parametrize(
    ("before", "after", "share", "refused"),
    [
        (10, 8, 0.2, False),
        (10, 7, 0.2, True),
        (10, 0, 0.2, True),
        (10, 0, 1.0, False),
        (1, 0, 0.99, True),
        (10, 9, 0.0, True),
        (10, 10, 0.0, False),
        (0, 0, 0.0, False),
    ],
)
def test_a_table_that_would_lose_more_than_its_share_is_left_as_it_is(
    replica: Replica, before: int, after: int, share: float, refused: bool
) -> None:
    replica.replace(FROM_FILE, numbered(before), 1.0)
    if refused:
        with pytest.raises(ShrinkError, match=f"{before - after} of {before} domains would go"):
            replica.replace(FROM_FILE, numbered(after), share)
        assert names(replica) == set(numbered(before))
    else:
        replica.replace(FROM_FILE, numbered(after), share)
        assert names(replica) == set(numbered(after))


def test_a_file_with_all_other_domains_is_refused_however_many_they_are(replica: Replica) -> None:
    replica.replace(FROM_FILE, numbered(10), 1.0)
    with pytest.raises(ShrinkError):
        replica.replace(FROM_FILE, numbered(1000, "other"), 0.2)
    assert names(replica) == set(numbered(10))


def test_the_domains_of_the_file_and_those_of_the_command_are_kept_apart(replica: Replica) -> None:
    replica.add(records("command.example", "both.example").values(), FROM_COMMAND)
    replica.replace(FROM_FILE, records("file.example", "both.example"), 0.2)
    assert {record.domain: record.origins for record in replica.records()} == {
        "command.example": FROM_COMMAND,
        "file.example": FROM_FILE,
        "both.example": BOTH,
    }
    replica.replace(FROM_FILE, {}, 1.0)
    assert names(replica) == {"command.example", "both.example"}
    replica.replace(FROM_COMMAND, {}, 1.0)
    assert names(replica) == set()


def test_a_command_cannot_remove_what_the_file_brought(replica: Replica) -> None:
    replica.replace(FROM_FILE, records("file.example", "both.example"), 0.2)
    replica.add(records("both.example").values(), FROM_COMMAND)
    assert not replica.remove("file.example", FROM_COMMAND)
    assert replica.remove("both.example", FROM_COMMAND)
    assert not replica.remove("both.example", FROM_COMMAND)
    assert {record.origins for record in replica.records()} == {FROM_FILE}
    assert names(replica) == {"file.example", "both.example"}


def test_a_domain_keeps_the_subdomains_that_the_file_brought_when_a_command_adds_it_without(
    replica: Replica,
) -> None:
    replica.replace(FROM_FILE, records(".one.example"), 0.2)
    replica.add([Record("one.example", "command:")], FROM_COMMAND)
    assert replica.find("sub.one.example").state is State.OURS
    assert replica.find("one.example").next_hop == "command:"
    assert list(replica.records(FROM_FILE)) == [Record("one.example", "", True, FROM_FILE)]
    assert list(replica.records(FROM_COMMAND)) == [Record("one.example", "command:", False, FROM_COMMAND)]
    replica.remove("one.example", FROM_COMMAND)
    assert replica.get("one.example") == Record("one.example", "", True, FROM_FILE)


def test_a_domain_keeps_what_a_command_said_when_the_file_brings_it_or_takes_it_away(
    replica: Replica,
) -> None:
    replica.add([Record("one.example", "command:", True)], FROM_COMMAND)
    replica.replace(FROM_FILE, {"one.example": Record("one.example", "file:", origins=FROM_FILE)}, 0.2)
    assert replica.get("one.example") == Record("one.example", "command:", True, BOTH)
    replica.replace(FROM_FILE, {}, 0.2)
    assert replica.get("one.example") == Record("one.example", "command:", True, FROM_COMMAND)


def test_the_files_next_hop_counts_where_the_command_has_none(replica: Replica) -> None:
    replica.replace(FROM_FILE, {"one.example": Record("one.example", "file:", origins=FROM_FILE)}, 0.2)
    replica.add([Record("one.example")], FROM_COMMAND)
    assert replica.find("one.example").next_hop == "file:"


def test_adding_again_takes_no_subdomains_away_and_replacing_does(replica: Replica) -> None:
    replica.add([Record("one.example", "one:", True)], FROM_COMMAND)
    replica.add([Record("one.example", "two:")], FROM_COMMAND)
    assert replica.get("one.example") == Record("one.example", "two:", True)
    replica.replace(FROM_COMMAND, {"one.example": Record("one.example")}, 0.2)
    assert replica.get("one.example") == Record("one.example")


def test_adding_counts_what_is_new_and_removing_says_whether_it_was_there(replica: Replica) -> None:
    assert replica.add(records("a.example", "b.example").values(), FROM_COMMAND) == 2
    assert replica.add(records("b.example", "c.example").values(), FROM_COMMAND) == 1
    assert replica.remove("a.example", FROM_COMMAND)
    assert not replica.remove("a.example", FROM_COMMAND)
    assert names(replica) == {"b.example", "c.example"}
    assert replica.get("a.example") is None


# Processes


def test_two_processes_see_each_others_change_at_once(replica: Replica, tmp_path: Path) -> None:
    code = """
replica.add([Record("theirs.example")], FROM_COMMAND)
print(replica.count(), flush=True)
sys.stdin.readline()
print(replica.find("ours.example").state.name)
"""
    with another_process(code, tmp_path) as other:
        assert hear(other) == "1\n"
        assert replica.find("theirs.example").state is State.OURS
        replica.add(records("ours.example").values(), FROM_COMMAND)
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert hear(other) == "OURS\n"


def test_the_place_of_a_reader_that_was_killed_is_free_after_the_next_tick(replica: Replica) -> None:
    code = "reading = replica._environment.begin(); print(flush=True); sys.stdin.read()"
    with another_process(code, replica.path.parent) as reader:
        hear(reader)
        assert str(reader.pid) in replica._environment.readers()
        replica.tick()
        assert str(reader.pid) in replica._environment.readers()
    replica.tick()
    assert str(reader.pid) not in replica._environment.readers()


def test_a_process_killed_in_the_middle_of_a_change_leaves_the_old_table(tmp_path: Path) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, numbered(1000), 1.0)
    code = """
def dying():
    for number in range(5000):
        yield Record(f"new{number}.example")
    os.kill(os.getpid(), signal.SIGKILL)
replica.add(dying(), FROM_FILE)
"""
    with another_process(code, tmp_path) as dying:
        assert dying.wait(60) == -signal.SIGKILL
    with closed(Replica(tmp_path)) as replica:
        assert names(replica) == set(numbered(1000))
        assert replica.add(records("new.example").values(), FROM_COMMAND) == 1


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
def test_a_process_killed_at_any_moment_leaves_the_old_table_or_the_new(tmp_path: Path, turns: int) -> None:
    with another_process(CHANGING_ON_AND_ON, tmp_path) as writer:
        for _ in range(turns):
            hear(writer)
        writer.kill()
    with closed(Replica(tmp_path)) as replica:
        assert names(replica) in (set(numbered(2000, "a")), set(numbered(2000, "b")))


# Damage


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: int(len(whole) * share)]


def overwritten(pages: Iterable[int], content: bytes) -> Callable[[bytes], bytes]:
    """These pages hold something else; -1 is the last one."""

    def spoil(whole: bytes) -> bytes:
        spoiled = bytearray(whole)
        for page in pages:
            start = page * 4096 if page >= 0 else len(whole) + page * 4096
            spoiled[start : start + 4096] = (content * 4096)[:4096]
        return bytes(spoiled)

    return spoil


DAMAGES = {
    "cut to nine tenths": cut(0.9),
    "cut in half": cut(0.5),
    "cut to its first page": lambda whole: whole[:4096],
    "cut to a few bytes": lambda whole: whole[:100],
    "another file": lambda whole: b"example.org\n" * 5000,
    "beginning with zeros": overwritten([0, 1], b"\0"),
    "full of zeros but for the beginning": overwritten(range(2, 40), b"\0"),
    "full of nonsense but for the beginning": overwritten(range(2, 40), b"\xa5\x5a\x13"),
    "with one page of zeros": overwritten([20], b"\0"),
    "with one page of nonsense": overwritten([20], b"nonsense"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_table_is_put_aside_and_a_new_one_begun(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, numbered(3000), 1.0)
    spoiled = damage(replica.path.read_bytes())
    replica.path.write_bytes(spoiled)
    with closed(Replica(tmp_path, mend=True)) as replica:
        assert replica.put_aside == tmp_path / "domains.broken"
        assert replica.put_aside.read_bytes() == spoiled
        assert replica.find("d1.example") == Match(State.FAILED)
        assert replica.replace(FROM_FILE, numbered(3000), 0.2) == Changed(3000, 0, 3000)
        assert replica.find("d1.example").state is State.OURS


def damaged(directory: Path) -> None:
    """Leave a table there that is cut off in the middle."""
    with closed(Replica(directory)) as replica:
        replica.replace(FROM_FILE, numbered(100), 1.0)
    replica.path.write_bytes(cut(0.5)(replica.path.read_bytes()))


def test_after_damage_what_is_not_known_may_be_ours_until_somebody_says_that_the_table_is_whole(
    tmp_path: Path,
) -> None:
    damaged(tmp_path)
    with closed(Replica(tmp_path, mend=True)) as mended:
        mended.add(records("example.org").values(), FROM_COMMAND)
        assert mended.find("d1.example") == Match(State.FAILED)
    with closed(Replica(tmp_path, mend=True)) as restarted:
        assert restarted.put_aside is None
        assert restarted.state("d1.example") is State.FAILED
        assert restarted.state("example.org") is State.OURS
        restarted.accept()
        assert restarted.find("d1.example") == Match(State.NOT_OURS)
    with closed(Replica(tmp_path)) as restarted:
        assert restarted.find("d1.example") == Match(State.NOT_OURS)


def test_another_process_takes_the_word_that_the_table_is_whole_at_its_next_tick(tmp_path: Path) -> None:
    damaged(tmp_path)
    with closed(Replica(tmp_path, mend=True)) as mended:
        mended.add(records("example.org").values(), FROM_COMMAND)
        assert mended.state("d1.example") is State.FAILED
        with another_process("replica.accept()", tmp_path) as command:
            assert command.wait(90) == 0
        mended.tick()
        assert mended.state("d1.example") is State.NOT_OURS


def test_a_table_that_was_never_damaged_may_be_accepted_too(replica: Replica) -> None:
    replica.accept()
    assert replica.find("example.org") == Match(State.OFF)


def test_a_command_leaves_a_damaged_table_for_the_daemon_to_put_aside(tmp_path: Path) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, numbered(3000), 1.0)
    replica.path.write_bytes(overwritten([20], b"\0")(replica.path.read_bytes()))
    with pytest.raises(ReplicaError, match="is damaged; mxweir policyd puts it aside when it starts"):
        Replica(tmp_path)
    assert replica.path.exists()


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_whole_table_is_kept_whatever_was_added_and_removed(tmp_path: Path, size: int) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, numbered(4000), 1.0)
        replica.replace(FROM_FILE, numbered(size // 20), 1.0)
    with closed(Replica(tmp_path, mend=True)) as replica:
        assert replica.put_aside is None
        assert replica.count() == size // 20


def test_an_empty_file_is_a_new_table(tmp_path: Path) -> None:
    (tmp_path / "domains.lmdb").touch()
    with closed(Replica(tmp_path)) as replica:
        assert replica.count() == 0


# Trouble with the disk


def test_another_table_in_its_place_is_taken_and_written_by_everybody_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    with closed(Replica(tmp_path / "backup")) as backup:
        for number in range(9):  # other transaction ids than those of the lock file in use
            backup.add(records(f"old{number}.example").values(), FROM_COMMAND)
    with closed(Replica(tmp_path)) as replica:
        replica.add(records("now.example").values(), FROM_COMMAND)
        assert not replica.displaced()
        backup.path.rename(replica.path)
        assert replica.displaced()
        assert replica.state("now.example") is State.OURS
        assert replica.succeed(replica.successor())
        assert not replica.displaced()
        with another_process("replica.add([Record('new.example')], FROM_COMMAND)", tmp_path) as command:
            assert command.wait(90) == 0
        asked = ("old0.example", "old8.example", "new.example", "now.example")
        assert [replica.state(name) for name in asked] == [State.OURS] * 3 + [State.NOT_OURS]


def test_a_table_that_was_written_over_this_one_is_taken(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    with closed(Replica(tmp_path / "backup")) as backup:
        for number in range(9):
            backup.add(records(f"old{number}.example").values(), FROM_COMMAND)
    with closed(Replica(tmp_path)) as replica:
        replica.add(records("now.example").values(), FROM_COMMAND)
        assert [replica.displaced() for _ in range(3)] == [False] * 3
        shutil.copyfile(backup.path, replica.path)
        assert [replica.displaced() for _ in range(2)] == [False, True]
        assert replica.succeed(replica.successor())
        assert [replica.displaced() for _ in range(2)] == [False, False]
        replica.add(records("new.example").values(), FROM_COMMAND)
        asked = ("old0.example", "old8.example", "new.example", "now.example")
        assert [replica.state(name) for name in asked] == [State.OURS] * 3 + [State.NOT_OURS]


def test_a_table_that_was_removed_is_put_back_with_all_it_had(tmp_path: Path) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.add(records("example.org").values(), FROM_COMMAND)
        replica.path.unlink()
        assert replica.displaced()
        assert replica.succeed(replica.successor())
        assert replica.state("example.org") is State.OURS
        assert sorted(path.name for path in tmp_path.iterdir()) == ["domains.lmdb", "domains.lmdb-lock"]
    with closed(Replica(tmp_path)) as restarted:
        assert restarted.state("example.org") is State.OURS


def test_what_is_damaged_or_changed_meanwhile_is_not_taken(tmp_path: Path) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, numbered(3000), 1.0)
        whole = replica.path.read_bytes()
        replica.path.unlink()
        replica.path.write_bytes(cut(0.5)(whole))
        with pytest.raises(ReplicaError, match="damaged"):
            replica.successor()
        replica.path.write_bytes(whole)
        successor = replica.successor()
        replica.path.unlink()
        assert not replica.succeed(successor)
        assert replica.state("d1.example") is State.OURS


def test_a_missing_state_directory_is_made(tmp_path: Path) -> None:
    with closed(Replica(tmp_path / "a" / "b")) as replica:
        replica.add(records("example.org").values(), FROM_COMMAND)
    assert (tmp_path / "a" / "b" / "domains.lmdb").stat().st_mode & 0o007 == 0


def test_a_state_directory_that_cannot_be_made_or_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "state" / "domains.lmdb").mkdir(parents=True)
    # Nobody may write to /proc, root neither.
    for directory in (tmp_path / "file" / "state", tmp_path / "state", Path("/proc/mxweir")):
        with pytest.raises(ReplicaError) as error:
            Replica(directory)
        assert str(error.value).startswith(f"{directory}/domains.lmdb: cannot be opened: ")
        assert "\n" not in str(error.value)


def test_a_full_disk_is_told_in_one_line_and_the_table_stays_as_it_was(tmp_path: Path) -> None:
    with closed(Replica(tmp_path)) as replica:
        replica.replace(FROM_FILE, numbered(100), 1.0)
    size = replica.path.stat().st_size
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 8192}, {resource.RLIM_INFINITY}))
try:
    replica.add([Record(f"new{{n}}.example") for n in range(5000)], FROM_FILE)
except ReplicaError as error:
    print(error)
print(replica.find("d1.example").state.name, replica.find("new1.example").state.name)
"""
    with another_process(code, tmp_path) as other:
        assert hear(other).startswith(f"{replica.path}: not changed: ")
        assert hear(other) == "OURS NOT_OURS\n"
    with closed(Replica(tmp_path)) as replica:
        assert names(replica) == set(numbered(100))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory on which not a byte is free."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        (directory / "state").mkdir()
        with pytest.raises(OSError, match="No space left"):
            (directory / "ballast").write_bytes(bytes(1_000_000))
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, timeout=60)


@pytest.mark.parametrize("free", [0, 1, 8, 16, 17])
def test_a_disk_that_is_full_at_the_first_start_is_told_in_one_line(full_disk: Path, free: int) -> None:
    os.truncate(full_disk / "ballast", (full_disk / "ballast").stat().st_size - free * 4096)
    code = f"""
for attempt in range(2):
    try:
        Replica(Path({str(full_disk / "state")!r}))
    except ReplicaError as error:
        print(error, flush=True)
"""
    with another_process(code, full_disk.parent / "elsewhere") as starting:
        told = [hear(starting), hear(starting)]
        assert starting.wait(90) == 0
    assert told == [f"{full_disk}/state/domains.lmdb: cannot be opened: No space left on device\n"] * 2


def test_the_lock_file_has_no_hole_that_a_full_disk_could_not_fill(replica: Replica) -> None:
    status = replica.path.with_name("domains.lmdb-lock").stat()
    assert status.st_blocks * 512 >= status.st_size


def test_a_command_that_is_told_to_stop_for_a_while_first_gives_the_lock_back(tmp_path: Path) -> None:
    code = """
def stopping():
    yield Record("one.example")
    os.kill(os.getpid(), signal.SIGTSTP)
    yield Record("two.example")
    print("locked", flush=True)
replica.add(stopping(), FROM_COMMAND)
print("went on", flush=True)
"""
    with closed(Replica(tmp_path)) as replica, another_process(code, tmp_path) as stopping:
        assert hear(stopping) == "locked\n"
        _, status = os.waitpid(stopping.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert names(replica) == {"one.example", "two.example"}
        assert replica.add([Record("three.example")], FROM_COMMAND) == 1
        os.kill(stopping.pid, signal.SIGCONT)
        assert hear(stopping) == "went on\n"
