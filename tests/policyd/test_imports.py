"""What the policy daemon does not need, and does not carry in its memory."""

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mxweir_ops.lab.process import wait_until

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

WITHOUT_LIBMILTER = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("Milter", "milter"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from mxweir_ops.cli import main
status = main(sys.argv[1:])
print(*sys.modules, sep="\\n")
sys.exit(status)
"""


@pytest.fixture
def loaded(own: "Policyd") -> set[str]:
    """What a policy daemon has imported when it has served and stopped, on a host without libmilter."""
    argv = [sys.executable, "-P", "-c", WITHOUT_LIBMILTER, "policyd", "--config", str(own.config_file)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as daemon:
        assert wait_until(lambda: own.page("/readyz")[0] == 200, 20)
        assert own.ask(recipient="x@foreign.example").startswith("550")
        daemon.send_signal(signal.SIGTERM)
        printed, _ = daemon.communicate(timeout=20)
    assert daemon.returncode == 0
    return set(printed.split())


def test_the_daemon_serves_without_libmilter_and_loads_nothing_of_the_milter_or_the_lab(
    loaded: set[str],
) -> None:
    packages = {name.partition(".")[0] for name in loaded}
    assert {"mxweir", "mxweir_policyd", "mxweir_ops"} <= packages
    assert not packages & {"mxweir_milter", "Milter", "milter", "hypothesis", "pytest"}
    ops = {name for name in loaded if name.startswith("mxweir_ops")}
    assert ops == {
        "mxweir_ops",
        "mxweir_ops.cli",
        "mxweir_ops.options",
        "mxweir_ops.commands",
        "mxweir_ops.commands.daemons",
    }
