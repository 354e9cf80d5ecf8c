"""What the policy daemon does not need, and does not carry in its memory."""

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from mxweir_ops.lab.process import wait_until

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from mxweir_ops.cli import main
status = main(sys.argv[2:])
print(*sys.modules, sep="\\n")
sys.exit(status)
"""


def loaded(own: "Policyd", *without: str) -> set[str]:
    """What a policy daemon has imported when it has served and stopped, where these cannot be imported."""
    verb = ["policyd", "--config", str(own.config_file)]
    argv = [sys.executable, "-P", "-c", WITHOUT, ",".join(without), *verb]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as daemon:
        assert wait_until(lambda: own.page("/readyz")[0] == 200, 60)
        with own.client() as half:
            half.send(b"request=smtpd_access_policy\n")
            # Until the domains file is loaded, nobody is refused for good.
            assert wait_until(lambda: own.ask(recipient="x@foreign.example").startswith("550"), 60)
            daemon.send_signal(signal.SIGTERM)
            half.send(b"protocol_state=RCPT\n\n")
            assert half.answer() == "DUNNO"
        printed, _ = daemon.communicate(timeout=60)
    assert daemon.returncode == 0
    return set(printed.split())


def test_the_daemon_serves_without_libmilter_and_loads_nothing_of_the_milter_or_the_lab(
    own: "Policyd",
) -> None:
    names = loaded(own, "Milter", "milter")
    packages = {name.partition(".")[0] for name in names}
    assert {"mxweir", "mxweir_policyd", "mxweir_ops"} <= packages
    assert not packages & {"mxweir_milter", "Milter", "milter", "hypothesis", "pytest", "psycopg"}
    assert {name for name in names if name.startswith("mxweir_ops")} == {
        "mxweir_ops",
        "mxweir_ops.cli",
        "mxweir_ops.connection_string",
        "mxweir_ops.options",
        "mxweir_ops.commands",
        "mxweir_ops.commands.daemons",
    }


def test_the_daemon_serves_and_drains_without_uvloop(own: "Policyd") -> None:
    assert "asyncio" in loaded(own, "uvloop")
