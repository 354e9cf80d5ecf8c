"""Root's commands in a state directory of another user; these tests need root."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir_ops.lab.place import temporary_directory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")

NOBODY = 65534


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory that belongs to somebody else, who can go there.

    Not below pytest's, which each pytest that begins shuts for others.
    """
    with temporary_directory() as directory:
        state = directory / "state"
        state.mkdir()
        os.chown(state, NOBODY, NOBODY)
        yield state


def mxweir(state: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command there as root."""
    config = state.parent / "mxweir.toml"
    config.write_text(f'state_dir = "{state}"\n[domains]\nfile = "{state.parent}/domains"\n')
    command = [sys.executable, "-P", "-m", "mxweir_ops", *map(str, words), "--config", str(config)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_table_that_root_makes_belongs_to_the_owner_of_its_directory(state: Path) -> None:
    assert mxweir(state, "domains", "add", "example.org").returncode == 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in state.iterdir()} == {(NOBODY, NOBODY)}


def test_a_state_directory_that_is_missing_is_made_as_the_owner_of_the_one_above(state: Path) -> None:
    assert mxweir(state / "below", "domains", "add", "example.org").returncode == 0
    assert (state / "below").stat().st_uid == NOBODY


@pytest.mark.parametrize("name", ["domains.lmdb", "domains.lmdb-lock"])
@pytest.mark.parametrize(
    "words", [["domains", "add", "example.org"], ["explain", "--sender", "a@example.org"]]
)
def test_a_link_in_the_directory_gives_its_owner_nothing_of_roots(
    state: Path, name: str, words: list[str]
) -> None:
    precious = state.parent / "precious"
    precious.write_text("precious\n")
    precious.chmod(0o600)
    (state / name).symlink_to(precious)
    done = mxweir(state, *words)
    assert done.returncode == 2
    told = f"{state}/domains.lmdb: cannot be opened: Permission denied; it must belong to the daemons' user"
    assert told in done.stderr
    assert precious.read_text() == "precious\n"


def test_a_file_that_only_root_can_read_is_imported_all_the_same(state: Path) -> None:
    source = state.parent / "import"
    source.write_text("example.org\n")
    source.chmod(0o600)
    assert mxweir(state, "domains", "import", source).stdout == "1 added, 0 removed, 1 in the table\n"
    assert (state / "domains.lmdb").stat().st_uid == NOBODY
