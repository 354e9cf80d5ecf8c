"""What CI may rely on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SKIPPING = {
    "a test": "import pytest\n\n\ndef test_x():\n    pytest.skip('no server')\n",
    "a file": "import pytest\n\npytest.skip('no server', allow_module_level=True)\n",
}


def run(directory: Path, test: str, **environment: str) -> int:
    """pytest's status for one file under our rules."""
    shutil.copy(CONFTEST, directory)
    (directory / "test_x.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        command, cwd=directory, env=inherited | environment, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("test", SKIPPING.values(), ids=SKIPPING.keys())
def test_a_skip_fails_where_ci_is_set(tmp_path: Path, test: str) -> None:
    assert run(tmp_path, test, CI="true") in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}


def test_a_skip_is_only_a_skip_on_a_developers_machine(tmp_path: Path) -> None:
    assert run(tmp_path, SKIPPING["a test"]) == pytest.ExitCode.OK
