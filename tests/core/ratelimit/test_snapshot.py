import contextlib
import json
import resource
import signal
import zlib
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.facts import Folder
from mxweir.ratelimit import snapshot
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.snapshot import SnapshotError, Writer
from mxweir.testing import question

NOW = 1_800_000_000.0
FOLDER = Folder()

RULES = """
[[limit]]
name = "sender"
key = "sender"
rate = "10/hour"

[[limit]]
name = "day"
key = ["sender_org", "recipient"]
rate = "10/day"
window = true

[[limit]]
name = "fan"
key = "client_network"
distinct = "sender"
rate = "10/hour"
"""


def limits(text: str = RULES) -> Limits:
    return Limits(loads(text).limit, FOLDER)


def used(count: int = 3, text: str = RULES) -> Limits:
    counted = limits(text)
    for i in range(count):
        counted.decide(question(sender=f"s\xe9{i % 4}@x.example", recipient="b\xf6b@b.example"), NOW + i)
    return counted


def shown(counted: Limits, now: float) -> list[tuple[str, str]]:
    """What the limits say of a few questions."""
    return [
        (step.rule, step.figure)
        for i in range(4)
        for step in counted.preview(
            question(sender=f"s\xe9{i}@x.example", recipient="b\xf6b@b.example"), now
        )[1]
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.state"


@pytest.mark.parametrize("later", [0.0, 1.0, 600.0, 3000.0, 90_000.0])
def test_what_was_saved_is_loaded_as_of_now(path, later):
    counted = used(9)
    now = NOW + 10
    snapshot.write(path, counted, now)
    loaded = limits()
    assert snapshot.read(path, loaded, now + later) == 4 + 1 + 1
    assert shown(loaded, now + later) == shown(counted, now + later)


def test_a_clock_that_stands_back_after_a_restart_gives_nothing_away(path):
    counted = used(9)
    snapshot.write(path, counted, NOW + 10)
    loaded = limits()
    snapshot.read(path, loaded, NOW - 5000)
    assert shown(loaded, NOW - 5000) == shown(counted, NOW + 10)


def test_saving_what_was_loaded_changes_nothing_that_is_said(path):
    counted = used(9)
    for _ in range(5):
        snapshot.write(path, counted, NOW + 10)
        counted = limits()
        snapshot.read(path, counted, NOW + 10)
    assert shown(counted, NOW + 10) == shown(used(9), NOW + 10)


def test_without_a_file_there_is_nothing_to_load(path):
    with pytest.raises(FileNotFoundError):
        snapshot.read(path, limits(), NOW)


def test_limits_that_remember_nothing_can_be_saved(path):
    snapshot.write(path, limits(), NOW)
    assert snapshot.read(path, limits(), NOW) == 0


def test_a_limit_with_another_rate_keeps_what_is_used(path):
    snapshot.write(path, used(9), NOW + 8)
    loaded = limits(RULES.replace("10/hour", "20/hour").replace("10/day", "5/day"))
    snapshot.read(path, loaded, NOW + 8)
    assert shown(loaded, NOW + 8)[:3] == [("sender", "3/20"), ("day", "9/5"), ("fan", "4/20")]


def test_a_limit_that_is_gone_or_counts_something_else_is_left_out(path):
    snapshot.write(path, used(9), NOW + 8)
    other = RULES.replace('key = "sender"', 'key = "sender_org"').replace('name = "fan"', 'name = "fan-out"')
    loaded = limits(other)
    snapshot.read(path, loaded, NOW + 8)
    assert shown(loaded, NOW + 8)[:3] == [("sender", "0/10"), ("day", "9/10"), ("fan-out", "0/10")]


def nothing_loaded(counted: Limits) -> bool:
    return all(size == 0 for _, size in counted.sizes())


def test_cut_at_any_byte_a_file_is_told_as_damaged_or_whole_and_never_loaded_by_half(path):
    counted = used(5)
    snapshot.write(path, counted, NOW + 5)
    whole = path.read_bytes()
    assert len(whole) > 300
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        loaded = limits()
        if whole[end:] == b"\n":
            snapshot.read(path, loaded, NOW + 5)
            assert shown(loaded, NOW + 5) == shown(counted, NOW + 5)
        else:
            with pytest.raises(SnapshotError):
                snapshot.read(path, loaded, NOW + 5)
            assert nothing_loaded(loaded)


def test_with_a_bit_of_any_byte_turned_a_file_is_told_as_damaged(path):
    snapshot.write(path, used(5), NOW + 5)
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        # The lowest bit makes another digit of a digit.
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        loaded = limits()
        with pytest.raises(SnapshotError):
            snapshot.read(path, loaded, NOW + 5)
        assert nothing_loaded(loaded)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200) | st.text('[]{}",:0123456789eE+-.\\nulltrefas\n', max_size=200).map(str.encode)
)
def test_a_file_of_anything_is_told_as_damaged(path, content):
    path.write_bytes(content)
    loaded = limits()
    with pytest.raises(SnapshotError):
        snapshot.read(path, loaded, NOW)
    assert nothing_loaded(loaded)


def test_lines_in_another_order_or_left_out_are_told_as_damaged(path):
    snapshot.write(path, used(5), NOW + 5)
    header, *body, end = path.read_bytes().splitlines(keepends=True)
    for lines in ([header, *reversed(body), end], [header, *body[1:], end], [header, *body, body[0], end]):
        path.write_bytes(b"".join(lines))
        with pytest.raises(SnapshotError):
            snapshot.read(path, limits(), NOW + 5)


def test_a_file_of_another_format_is_told_by_its_name(path):
    snapshot.write(path, used(5), NOW + 5)
    header, *rest = path.read_bytes().splitlines(keepends=True)
    header = header.replace(b"mxweir limits 1", b"mxweir limits 9")
    rest = [*rest[:-1], json.dumps({"end": 6, "crc32": zlib.crc32(b"".join([header, *rest[:-1]]))}).encode()]
    path.write_bytes(b"".join([header, *rest]))
    with pytest.raises(SnapshotError, match="another format: 'mxweir limits 9'"):
        snapshot.read(path, limits(), NOW + 5)


def test_a_deep_nest_of_brackets_is_no_more_than_a_damaged_file(path):
    path.write_bytes(b"[" * 200_000 + b"\n" + b"{}\n")
    with pytest.raises(SnapshotError):
        snapshot.read(path, limits(), NOW)


def many(count: int = 5000) -> Limits:
    counted = limits('[[limit]]\nname = "a"\nkey = "sender"\nrate = "5/day"\n')
    for i in range(count):
        counted.decide(question(sender=f"somebody-{i}@x.example"), NOW)
    return counted


def test_writing_pauses_after_every_few_hundred_keys_and_before_it_waits_for_the_disk(path):
    steps = Writer(path, many(), NOW).steps()
    pauses = [wait is not None and wait() is None for wait in steps]
    assert pauses == [False] * 10 + [True]
    assert snapshot.read(path, many(0), NOW) == 5000


def test_counting_goes_on_while_a_snapshot_is_written(path):
    counted = many()
    for i, _ in enumerate(Writer(path, counted, NOW).steps()):
        for j in range(300):
            counted.decide(question(sender=f"new-{i}-{j}@x.example"), NOW)
        counted.tick(NOW + 86400.0 * i)
    assert snapshot.read(path, many(0), NOW) >= 5000


def test_only_its_owner_may_read_it(path):
    snapshot.write(path, used(), NOW)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_beside_it(path):
    snapshot.write(path, used(), NOW)
    assert [file.name for file in path.parent.iterdir()] == ["limits.state"]


def begun(path: Path) -> Generator[object, None, None]:
    """A writer that has more to write than one step, and may be stopped."""
    steps = Writer(path, many(), NOW).steps()
    assert isinstance(steps, Generator)
    return steps


def test_until_the_last_step_the_former_file_stays(path):
    former = used(5)
    snapshot.write(path, former, NOW + 5)
    kept = path.read_bytes()
    with contextlib.closing(begun(path)) as steps:
        for _ in range(5):
            next(steps)
            assert path.read_bytes() == kept
    assert path.read_bytes() == kept
    assert [file.name for file in path.parent.iterdir()] == ["limits.state"]


def test_a_writer_that_was_stopped_half_way_spoils_nothing_for_the_next(path):
    with contextlib.closing(begun(path)) as stopped:
        next(stopped)
        snapshot.write(path, used(5), NOW + 5)
    loaded = limits()
    assert snapshot.read(path, loaded, NOW + 5) == 6
    assert shown(loaded, NOW + 5) == shown(used(5), NOW + 5)


def test_what_a_killed_writer_left_is_written_over(path):
    path.with_suffix(".new").write_bytes(b"half of " * 1000)
    snapshot.write(path, used(5), NOW + 5)
    assert snapshot.read(path, limits(), NOW + 5) == 6


def test_on_a_full_disk_the_former_file_stays_and_nothing_is_left_beside_it(path):
    snapshot.write(path, used(5), NOW + 5)
    kept = path.read_bytes()
    # A limit on the size of files is a full disk to the process that writes one (setrlimit(2)).
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, former[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            snapshot.write(path, many(), NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == kept
    assert [file.name for file in path.parent.iterdir()] == ["limits.state"]


def test_a_directory_that_is_not_there_is_an_error_of_the_system(path):
    with pytest.raises(FileNotFoundError):
        snapshot.write(path.parent / "nowhere" / "limits.state", used(), NOW)
