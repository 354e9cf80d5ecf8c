"""`make install`, staged as a packager does it and then moved to where it says it is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
CONFIGURATION = Path("etc/mxweir/mxweir.toml")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("install")]


def make_install(prefix: Path, destdir: Path) -> str:
    """Install; what was printed."""
    command = ["make", "--no-print-directory", "install", f"PREFIX={prefix}", f"DESTDIR={destdir}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(
        command,
        cwd=TOP,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PREFIX and DESTDIR of one installation that all tests look at."""
    prefix, destdir = tmp_path_factory.mktemp("prefix") / "mxweir", tmp_path_factory.mktemp("staged")
    make_install(prefix, destdir)
    return prefix, destdir


@pytest.fixture(scope="session")
def installed(staged: tuple[Path, Path]) -> Path:
    """PREFIX after the staged tree was copied to it."""
    prefix, destdir = staged
    shutil.copytree(destdir / prefix.relative_to("/"), prefix, symlinks=True)
    return prefix


def test_the_installed_program_runs_from_where_it_was_installed_for(installed: Path) -> None:
    example = installed / "share/doc/mxweir/mxweir.toml"
    result = subprocess.run(
        [installed / "bin/mxweir", "config", "check", "--config", example],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_installed_program_needs_nothing_from_the_checkout(installed: Path) -> None:
    code = "import mxweir, mxweir_policyd.app, mxweir_milter.app, mxweir_ops; print(mxweir.__file__)"
    python = installed / "lib/mxweir/bin/python"
    result = subprocess.run([python, "-I", "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert result.stdout.startswith(str(installed))


def test_the_installed_program_has_the_schema_for_postgresql(installed: Path) -> None:
    code = "from mxweir_policyd.relaydomains.migrate import newest; print(newest())"
    python = installed / "lib/mxweir/bin/python"
    result = subprocess.run([python, "-I", "-c", code], cwd="/", capture_output=True, text=True, check=True)
    shipped = list((TOP / "policyd/mxweir_policyd/relaydomains/schema").glob("*.sql"))
    assert int(result.stdout) == len(shipped)
    assert (installed / "share/doc/mxweir/roles.sql").is_file()


def test_no_installed_file_names_the_staging_directory(staged: tuple[Path, Path]) -> None:
    _, destdir = staged
    name = str(destdir).encode()
    files = (path for path in destdir.rglob("*") if path.is_file() and not path.is_symlink())
    assert [str(path) for path in files if name in path.read_bytes()] == []


def test_systemd_accepts_the_installed_units_as_they_are(staged: tuple[Path, Path], installed: Path) -> None:
    _, destdir = staged
    units = sorted((destdir / "etc/systemd/system").iterdir())
    assert [unit.name for unit in units] == sorted(unit.name for unit in (TOP / "systemd").glob("mxweir*"))
    services = [unit.read_text() for unit in units if unit.suffix == ".service"]
    assert all(f"ExecStart={installed}/bin/mxweir" in service for service in services)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    result = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    # It also complains about units of other packages that this machine happens to have.
    said = [line for line in result.stderr.splitlines() if not line.startswith("/lib/systemd/system/")]
    assert (result.returncode, result.stdout, said) == (0, "", [])


def test_users_and_directories_are_declared_where_systemd_reads_them(staged: tuple[Path, Path]) -> None:
    _, destdir = staged
    assert (destdir / "etc/sysusers.d/mxweir.conf").is_file()
    assert (destdir / "etc/tmpfiles.d/mxweir.conf").is_file()


def test_the_shipped_configuration_is_installed_unreadable_for_strangers(staged: tuple[Path, Path]) -> None:
    _, destdir = staged
    assert (destdir / CONFIGURATION).read_bytes() == (TOP / "conf/mxweir.toml").read_bytes()
    assert (destdir / CONFIGURATION).stat().st_mode & 0o777 == 0o640


def test_a_second_installation_keeps_the_configuration_and_replaces_the_programs(
    staged: tuple[Path, Path], installed: Path, tmp_path: Path
) -> None:
    prefix = installed
    (tmp_path / CONFIGURATION).parent.mkdir(parents=True)
    (tmp_path / CONFIGURATION).write_text("# mine\n")
    stale = tmp_path / prefix.relative_to("/") / "lib/mxweir/bin/stale"
    stale.parent.mkdir(parents=True)
    stale.touch()

    said = make_install(prefix, tmp_path)

    assert (tmp_path / CONFIGURATION).read_text() == "# mine\n"
    assert f"{tmp_path}/etc/mxweir/mxweir.toml is kept" in said
    assert (stale.parent / "mxweir").is_file()
    assert not stale.exists()
