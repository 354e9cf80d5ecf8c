"""What CI may rely on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
LIVE_CONFTEST = CONFTEST.with_name("live") / "conftest.py"

SKIPPING = {
    "a test": "import pytest\n\n\ndef test_x():\n    pytest.skip('no server')\n",
    "a file": "import pytest\n\npytest.skip('no server', allow_module_level=True)\n",
}


FAILING = """\
from pathlib import Path

from mxweir_ops.lab.stack import Plan, Stack


def test_x():
    stack = Stack(Path(), Plan())
    assert stack.port == 25
"""


def run(
    directory: Path, test: str, conftest: Path = CONFTEST, **environment: str
) -> subprocess.CompletedProcess[str]:
    """pytest for one file under our rules."""
    shutil.copy(conftest, directory)
    (directory / "test_x.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        command, cwd=directory, env=inherited | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("test", SKIPPING.values(), ids=SKIPPING.keys())
def test_a_skip_fails_where_ci_is_set(tmp_path: Path, test: str) -> None:
    status = run(tmp_path, test, CI="true").returncode
    assert status in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}


def test_a_skip_is_only_a_skip_on_a_developers_machine(tmp_path: Path) -> None:
    assert run(tmp_path, SKIPPING["a test"]).returncode == pytest.ExitCode.OK


def test_a_live_test_that_fails_tells_what_its_servers_have_logged(tmp_path: Path) -> None:
    logs = {
        "postfix/log/mail.log": "warning: problem talking to server",
        "policyd.log": "event=started",
        "milter.log": "event=stopped",
    }
    for name, line in logs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{line}\n")
    told = run(tmp_path, FAILING, LIVE_CONFTEST).stdout
    assert [told.count(line) for line in logs.values()] == [2, 1, 1], told
