"""`mxweir demo` and `mxweir run`, as a person starts them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mxweir.endpoint import Inet
from mxweir_ops.development import ADDRESSES
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import command, get
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack

MXWEIR = [sys.executable, "-P", "-m", "mxweir_ops"]
PAGES = (ADDRESSES.policyd_http, ADDRESSES.milter_http)


class Running:
    """A command in the foreground, its two streams in files."""

    def __init__(self, arguments: list[str], directory: Path):
        self.stdout, self.stderr = directory / "stdout", directory / "stderr"
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(arguments, stdout=stdout, stderr=stderr, process_group=0)

    def child(self, verb: str) -> int | None:
        """The process id of the child that runs a daemon."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in map(int, children):
            with suppress(OSError):  # it is gone
                if verb in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
                    return pid
        return None

    def ready(self, *pages: Inet) -> bool:
        return self.process.poll() is not None or all(get(page, "/readyz")[0] == 200 for page in pages)


@contextmanager
def started(arguments: list[str], directory: Path) -> Iterator[Running]:
    running = Running(arguments, directory)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            try:
                running.process.wait(90)
            except subprocess.TimeoutExpired:
                running.process.kill()


def test_the_demonstration_shows_six_messages_each_with_its_answer_and_the_rule_behind_it(
    place: Path,
) -> None:
    env = os.environ | {"TMPDIR": str(place)}
    demo = [*MXWEIR, "demo", "--json"]
    done = subprocess.run(demo, check=False, capture_output=True, text=True, timeout=240, env=env)
    if "not installed" in done.stderr or "needs root" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stderr) == (0, "")
    shown = {scene["scene"]: scene for scene in json.loads(done.stdout)}
    replies = {name: scene["reply"]["code"] for name, scene in shown.items()}
    assert replies == {
        "accepted": 250,
        "spam tagged": 250,
        "spam rejected": 550,
        "relay denied": 550,
        "over the limit": 550,
        "blocked": 554,
    }
    assert shown["accepted"]["delivered"]["X-Spam-Flag"] == "NO"
    assert shown["spam tagged"]["delivered"]["X-Spam-Flag"] == "YES"
    assert shown["spam rejected"]["log"]["outcome"] == "rejected"
    assert shown["relay denied"]["log"]["check"] == "relay"
    assert (shown["over the limit"]["log"]["rule"], shown["over the limit"]["log"]["used"]) == (
        "sender",
        "3/3",
    )
    assert shown["blocked"]["log"]["key"] == "bulk.example"
    assert not list(place.glob("mxweir-*"))


def test_the_demonstration_stops_everything_when_it_is_interrupted(place: Path, tmp_path: Path) -> None:
    env = os.environ | {"TMPDIR": str(place)}
    with (tmp_path / "output").open("wb") as output:
        demo = subprocess.Popen([*MXWEIR, "demo"], stdout=output, stderr=output, process_group=0, env=env)
    assert wait_until(
        lambda: demo.poll() is not None or b"1. accepted" in (tmp_path / "output").read_bytes(), 120
    )
    demo.terminate()
    demo.wait(120)
    assert not list(place.glob("mxweir-*"))
    assert wait_until(lambda: processes_with(str(place) + "/mxweir-") == [], 30)


def processes_with(text: str) -> list[str]:
    """Command lines that contain this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def test_a_development_run_says_where_it_listens_serves_there_and_stops_cleanly(tmp_path: Path) -> None:
    home = tmp_path / "development"
    with started([*MXWEIR, "run", "--development", str(home)], tmp_path) as running:
        assert wait_until(lambda: running.ready(*PAGES), 90)
        told = running.stdout.read_text()
        for line in (
            "inet:127.0.0.1:10040",
            "inet:127.0.0.1:10041",
            "inet:127.0.0.1:10043",
            ":10042/metrics",
        ):
            assert line in told
        assert "smtpd_relay_restrictions = " in told
        with PolicyClient(ADDRESSES.policy) as client:
            assert client.ask(recipient="anna@example.org") == "DUNNO"
            assert client.ask(recipient="dave@elsewhere.example").startswith("550 5.7.1")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(90) == 0
    assert "Traceback" not in running.stderr.read_text()
    assert (home / "state").is_dir()


def test_a_daemon_that_is_killed_under_mxweir_run_comes_back_while_the_other_serves_on(
    tmp_path: Path, place: Path, spamd: Spamd
) -> None:
    (place / "run").mkdir()
    stack = Stack(place / "run", Plan(engine=spamd.endpoint))
    (stack.directory / "state").mkdir()
    stack.domains_file.write_text("example.org\n")
    stack.write_config()
    pages = (stack.addresses.policyd_http, stack.addresses.milter_http)
    with started(command("run", stack.config_file), tmp_path) as running:
        assert wait_until(lambda: running.ready(*pages), 90)
        policyd, milter = running.child("policyd"), running.child("milter")
        assert policyd is not None
        os.kill(policyd, signal.SIGKILL)
        assert wait_until(lambda: running.child("policyd") not in (None, policyd), 60)
        assert wait_until(lambda: running.ready(*pages), 90)
        with PolicyClient(stack.addresses.policy) as client:
            assert client.ask() == "DUNNO"
        assert running.child("milter") == milter
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(90) == 0
    log = running.stderr.read_text()
    assert log.count("policyd ended") == 1
    assert "SIGKILL" in log


def test_mxweir_run_refuses_a_broken_configuration_with_all_its_mistakes(tmp_path: Path) -> None:
    config = tmp_path / "mxweir.toml"
    config.write_text('state_dri = "/x"\n\n[milter]\ndeadline = "soon"\n')
    done = subprocess.run(command("run", config), check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "state_dir" in done.stderr
    assert "deadline" in done.stderr
    assert "Traceback" not in done.stderr
