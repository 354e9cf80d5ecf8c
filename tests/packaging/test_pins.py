"""The files in constraints/: whole, hashed, and silent about where packages come from."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
FILES = sorted((TOP / "constraints").glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.MULTILINE)
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Every package that pyproject.toml asks for, whatever for."""
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for group in (*project["optional-dependencies"].values(), *PROJECT["dependency-groups"].values()):
        wanted += group
    names = {normal(re.split(r"[\[<>=; ]", requirement)[0]) for requirement in wanted}
    return names - {"mxweir"}


def test_everything_that_the_project_asks_for_is_pinned() -> None:
    pinned = {normal(name) for file in FILES for name, _ in PIN.findall(file.read_text())}
    assert declared() <= pinned


def test_no_package_is_pinned_at_two_versions() -> None:
    pins = {pin for file in FILES for pin in PIN.findall(file.read_text())}
    assert len(pins) == len({normal(name) for name, _ in pins})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_pin_has_a_hash(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert pins
    assert [line for line in pins if "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_file_names_an_index_or_a_host(file: Path) -> None:
    assert re.findall(r"://|--(?:index-url|extra-index-url|find-links|trusted-host)", file.read_text()) == []


WITHOUT_LIBMILTER = """
import importlib, pkgutil, sys
sys.modules["milter"] = sys.modules["Milter"] = None
import mxweir, mxweir_policyd
for package in (mxweir, mxweir_policyd):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def test_the_policy_daemon_can_be_imported_where_libmilter_is_not_installed() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBMILTER], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
