"""Postfix's own tables, changed by Postfix's own tool: always what ours say, and never half."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.domains.match import Match, digest, find
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir_ops.cli import main
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import program
from mxweir_policyd.postfix import keeping
from mxweir_policyd.postfix.keeping import PostfixMaps
from mxweir_policyd.postfix.postmap import PostfixMap, PostfixMapError
from mxweir_policyd.postfix.rows import RELAY, TRANSPORT, rows_of

HOP = "smtp:[192.0.2.25]"


class Given:
    """A source that holds what a test gave it."""

    def __init__(self, *records: Record) -> None:
        self.is_whole = True
        self.put(*records)

    def put(self, *records: Record) -> None:
        self.by_hash = {digest(record.domain): record.encode() for record in records}

    def find(self, domain: str) -> Match:
        return find(domain, self.by_hash.get)

    def records(self) -> Iterator[Record]:
        return map(Record.decode, self.by_hash.values())

    def whole(self) -> bool:
        return self.is_whole

    def rows(self) -> tuple[dict[str, str], dict[str, str]]:
        both = [rows_of(record) for record in self.records()]
        return (
            {key: value for rows in both for key, value in rows.relay.items()},
            {key: value for rows in both for key, value in rows.transport.items()},
        )


@pytest.fixture
def directory() -> Iterator[Path]:
    program("postmap", "postfix")
    with temporary_directory() as path:
        yield path


def content(directory: Path, name: str) -> dict[str, str]:
    """All rows, as postmap prints them."""
    command = [str(program("postmap", "postfix")), "-s", f"lmdb:{directory / name}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("\t") for line in printed.splitlines())


def both(directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    return content(directory, RELAY), content(directory, TRANSPORT)


ONE = Record("example.org")
HOPS = Record("example.net", HOP)
TREE = Record("tree.example", HOP, True)
BOOKS = Record("xn--bcher-kva.example", "", True)


def test_tables_that_were_not_there_are_made_with_all_that_is_ours(directory: Path) -> None:
    source = Given(ONE, HOPS, TREE, BOOKS)
    assert PostfixMaps(directory).agree(source).rebuilt == 2
    assert both(directory) == source.rows()
    assert sorted(path.name for path in directory.iterdir()) == [
        "lock",
        "relay-domains.lmdb",
        "transport.lmdb",
    ]


def test_tables_that_agree_are_left_alone(directory: Path) -> None:
    source = Given(ONE, HOPS, TREE, BOOKS)
    maps = PostfixMaps(directory)
    maps.agree(source)
    before = (directory / "relay-domains.lmdb").stat()
    assert maps.agree(source) == (0, 0, 0)
    assert (directory / "relay-domains.lmdb").stat().st_mtime_ns == before.st_mtime_ns


def test_what_changed_is_changed_in_place_and_nothing_else(directory: Path) -> None:
    maps, source = PostfixMaps(directory), Given(ONE, HOPS, TREE, BOOKS)
    maps.agree(source)
    inode = (directory / "relay-domains.lmdb").stat().st_ino
    source.put(
        Record("example.org", HOP), HOPS, TREE._replace(include_subdomains=False), Record("new.example")
    )
    domains = ["example.org", "tree.example", "new.example", "xn--bcher-kva.example", "never.example"]
    assert maps.follow(domains, source) == (2, 6, 0)
    assert both(directory) == source.rows()
    assert (directory / "relay-domains.lmdb").stat().st_ino == inode


names = st.sampled_from(
    [
        "a.example",
        "b.a.example",
        "c.b.a.example",
        "d.example",
        "xn--bcher-kva.example",
        "e.xn--bcher-kva.example",
    ]
)
flags = st.booleans()
records = st.builds(
    Record, names, st.sampled_from(["", HOP]), flags, st.just(FROM_POSTGRES), flags, tenant=st.just("")
)
states = st.lists(
    st.lists(records, min_size=1, max_size=6, unique_by=lambda record: record.domain), max_size=4
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(states, st.booleans())
def test_whatever_the_changes_the_tables_are_what_ours_say(steps: list[list[Record]], follow: bool) -> None:
    program("postmap", "postfix")
    with temporary_directory() as directory:
        maps, source = PostfixMaps(directory), Given(ONE)
        maps.agree(source)
        known = {ONE.domain}
        for step in steps:
            source.put(*step)
            known |= {record.domain for record in step}
            _ = maps.follow(known, source) if follow else maps.agree(source)
            assert both(directory) == source.rows()


def test_rows_that_somebody_else_put_or_took_are_found_at_the_next_full_look(directory: Path) -> None:
    maps, source = PostfixMaps(directory), Given(ONE, HOPS, TREE, BOOKS)
    maps.agree(source)
    table = PostfixMap(directory, RELAY)
    table.put([("foreign.example", "OK"), ("example.org", "other")])
    table.delete(["example.net"])
    assert maps.agree(source) == (2, 1, 0)
    assert both(directory) == source.rows()


def test_nothing_is_taken_out_while_ours_are_not_whole(directory: Path) -> None:
    maps, source = PostfixMaps(directory), Given(ONE, HOPS)
    maps.agree(source)
    source.put(HOPS, BOOKS)
    source.is_whole = False
    maps.agree(source)
    maps.follow(["example.org"], source)
    assert content(directory, RELAY) == source.rows()[0] | {"example.org": "OK"}
    source.is_whole = True
    maps.agree(source)
    assert both(directory) == source.rows()


def test_no_table_is_made_of_what_is_not_whole(directory: Path) -> None:
    source = Given(ONE)
    source.is_whole = False
    PostfixMaps(directory).agree(source)
    assert not list(directory.glob("*.lmdb"))


def test_many_differences_are_mended_by_writing_the_table_anew_in_its_place(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_MANY", 100)
    maps, source = PostfixMaps(directory), Given(ONE)
    maps.agree(source)
    inode = (directory / "relay-domains.lmdb").stat().st_ino
    source.put(*(Record(f"d{number}.example", HOP) for number in range(1000)))
    assert maps.agree(source).rebuilt == 2
    assert both(directory) == source.rows()
    assert (directory / "relay-domains.lmdb").stat().st_ino == inode


def test_killed_amidst_writing_a_table_anew_it_has_the_old_content_whole(directory: Path) -> None:
    table = PostfixMap(directory, RELAY)
    table.rebuild([("example.org", "OK")])
    code = (
        "import sys; from pathlib import Path; from mxweir_policyd.postfix.postmap import PostfixMap\n"
        f"PostfixMap(Path({str(directory)!r}), 'relay-domains')"
        ".rebuild((f'd{n}.example', 'OK') for n in range(400_000))"
    )

    child = subprocess.Popen([sys.executable, "-P", "-c", code], process_group=0)
    while child.poll() is None and not list(directory.glob(".new-*/relay-domains.lmdb")):
        time.sleep(0.001)
    time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    rows = content(directory, RELAY)
    assert rows == {"example.org": "OK"} or len(rows) == 400_000


def test_without_postmap_it_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxweir_policyd.postfix.postmap._PATH", str(directory))
    with pytest.raises(
        PostfixMapError, match=r"postmap is not installed \(Debian's package postfix has it\)"
    ):
        PostfixMaps(directory).agree(Given(ONE))
    assert not list(directory.glob("*.lmdb"))


def test_a_postmap_that_fails_is_told_in_its_own_words(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = directory / "bin" / "postmap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'postmap: fatal: unsupported dictionary type: lmdb' >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("mxweir_policyd.postfix.postmap._PATH", str(fake.parent))
    with pytest.raises(PostfixMapError) as raised:
        PostfixMaps(directory).agree(Given(ONE))
    assert str(raised.value).endswith(
        "postmap failed: fatal: unsupported dictionary type: lmdb; install Debian's package postfix-lmdb"
    )


def test_a_postmap_that_says_nothing_and_does_nothing_is_noticed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, source = PostfixMaps(directory), Given(ONE)
    maps.agree(source)
    source.put(ONE, HOPS)
    monkeypatch.setattr("mxweir_policyd.postfix.postmap._PATH", str(directory))
    (directory / "postmap").symlink_to("/bin/true")
    with pytest.raises(PostfixMapError, match=r"example\.net is not as it should be"):
        maps.agree(source)


@pytest.mark.parametrize("name", [RELAY, TRANSPORT])
def test_a_table_that_somebody_took_away_is_made_anew_at_the_next_look(directory: Path, name: str) -> None:
    maps, source = PostfixMaps(directory), Given(ONE, HOPS)
    maps.agree(source)
    (directory / f"{name}.lmdb").unlink()
    assert maps.follow([], source).rebuilt
    assert both(directory) == source.rows()


def test_a_table_that_is_damaged_is_told(directory: Path) -> None:
    maps, source = PostfixMaps(directory), Given(ONE)
    maps.agree(source)
    (directory / "relay-domains.lmdb").write_bytes(b"no table at all" * 1000)
    with pytest.raises(PostfixMapError, match=r"relay-domains\.lmdb: cannot be read"):
        maps.agree(source)


def test_the_command_makes_the_tables_and_then_changes_them_in_place(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, tables = directory / "mxweir.toml", directory / "postfix"
    config.write_text(f'state_dir = "{directory}/state"\n')

    def domains(*words: str) -> str:
        assert main(["domains", *words, "--config", str(config)]) == 0
        return capsys.readouterr().out

    export = ("export", "--postfix-lmdb", str(tables))
    domains("add", "example.org", "bücher.example", ".tree.example")
    assert domains(*export) == f"{tables}: written anew; 5 rows in relay-domains\n"
    domains("add", "example.net", "--next-hop", HOP)
    domains("remove", "example.org")
    assert domains(*export) == f"{tables}: 2 put, 1 taken out; 5 rows in relay-domains\n"
    told = json.loads(domains(*export, "--json"))
    assert told == {"put": 0, "removed": 0, "rebuilt": 0, "rows": 5, "whole": True}
    assert content(tables, TRANSPORT) == {"example.net": HOP}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_root_makes_the_tables_as_the_owner_of_the_state_directory(directory: Path) -> None:
    nobody, state, tables = 65534, directory / "state", directory / "postfix"
    for place in (state, tables):
        place.mkdir()
        os.chown(place, nobody, nobody)
    config = directory / "mxweir.toml"
    config.write_text(f'state_dir = "{state}"\n')
    for words in (["domains", "add", "example.org"], ["domains", "export", "--postfix-lmdb", str(tables)]):
        command = [sys.executable, "-P", "-m", "mxweir_ops", *words, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    assert content(tables, RELAY) == {"example.org": "OK"}
    assert {path.stat().st_uid for path in tables.iterdir()} == {nobody}
