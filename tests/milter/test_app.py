"""The daemon as a process. What it does with mail through Postfix is in tests/live."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from mxweir.config import loads
from mxweir.endpoint import Unix
from mxweir_milter.app import MilterDaemon
from mxweir_ops.lab.mta import Mta
from mxweir_ops.lab.place import free_port

both = pytest.mark.parametrize("daemon", ["asyncio", "libmilter"], indirect=True)
"""For what the front has a part in; the other tests have the default one."""

RUN = """
import sys
from pathlib import Path
{first}
from mxweir.config import load
from mxweir_milter.app import run
path = Path(sys.argv[1])
sys.exit(run(load(path), path))
"""


class Daemon:
    """One milter process with its configuration and log."""

    def __init__(self, directory, front):
        self.front = front
        self.socket = directory / "milter.sock"
        self.config = directory / "mxweir.toml"
        self.log_file = directory / "log"
        self.listen = f"unix:{self.socket}"
        self.port = free_port()
        self.process = None

    def write(self, more="", before=""):
        http = f"inet:127.0.0.1:{self.port}"
        self.config.write_text(
            f'{before}\n[milter]\nfront = "{self.front}"\nlisten = "{self.listen}"\nhttp = "{http}"\n{more}\n'
        )

    def start(self, first="", env=None):
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN.format(first=first), str(self.config)],
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )

    def log(self):
        return self.log_file.read_text()

    def get(self, page):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{page}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return None, ""

    def wait_for(self, true):
        until = time.monotonic() + 60
        while not true():
            assert time.monotonic() < until, self.log()
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def wait_ready(self):
        self.wait_for(lambda: self.get("/readyz")[0] == 200)

    def wait_logged(self, text):
        self.wait_for(lambda: text in self.log())

    def stop(self):
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def daemon(request, tmp_path):
    front = getattr(request, "param", "asyncio")
    if front == "libmilter":
        pytest.importorskip("Milter")
    made = Daemon(tmp_path, front)
    made.write()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_it_preempts_nobody(daemon):
    daemon.start()
    daemon.wait_ready()
    assert os.sched_getscheduler(daemon.process.pid) == os.SCHED_BATCH
    daemon.stop()


@both
def test_it_listens_says_so_and_ends_with_status_0_on_sigterm(daemon):
    daemon.write('socket_mode = "0640"')
    daemon.start()
    daemon.wait_ready()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o640
    assert f"event=started listen=unix:{daemon.socket}" in daemon.log()
    assert daemon.stop() == 0
    assert not daemon.socket.exists()
    assert "event=stopped unanswered=0" in daemon.log()


@both
def test_a_stop_with_nothing_in_hand_does_not_wait_for_libmilters_five_seconds(daemon):
    def seconds():
        daemon.start()
        daemon.wait_ready()
        began = time.monotonic()
        daemon.stop()
        return time.monotonic() - began

    # libmilter looks every five seconds from its start on; a busy machine may take as long, but not always.
    assert any(seconds() < 3 for _ in range(5))


@both
def test_who_has_connected_before_a_stop_still_gets_an_answer_to_the_message_it_sends_then(daemon):
    daemon.start()
    daemon.wait_ready()
    with Mta(Unix(str(daemon.socket))) as mta:
        mta.negotiate()
        mta.greet()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for(lambda: not daemon.socket.exists())
        answer = mta.deliver()
        mta.say(b"Q")
    assert answer[-1] == (b"a", b"")
    assert b"reason=no engine" in answer[0][1]
    assert daemon.process.wait(60) == 0


def test_who_has_connected_and_says_nothing_does_not_hold_up_a_stop_for_long(daemon):
    daemon.write('drain = "10m"')
    daemon.start()
    daemon.wait_ready()
    with Mta(Unix(str(daemon.socket))) as mta:
        mta.negotiate()
        assert daemon.stop() == 0


def test_a_message_that_never_ends_holds_up_a_stop_for_the_drain_time_and_no_longer(daemon):
    daemon.write('drain = "500ms"')
    daemon.start()
    daemon.wait_ready()
    with Mta(Unix(str(daemon.socket))) as mta:
        mta.negotiate()
        mta.say(b"M", b"<a@sender.example>\0")
        assert daemon.stop() == 0
    assert "event=stopped unanswered=1" in daemon.log()


def test_without_an_engine_it_runs_and_says_that_nothing_is_scanned(daemon):
    daemon.start()
    daemon.wait_ready()
    assert "no scanner is configured; the milter marks all mail unscanned" in daemon.log()


def test_the_default_front_needs_no_pymilter(daemon):
    daemon.start(first="sys.modules['Milter'] = None")
    daemon.wait_ready()
    assert "front=asyncio" in daemon.log()


@pytest.mark.parametrize("daemon", ["libmilter"], indirect=True)
def test_libmilters_front_without_pymilter_says_in_one_line_what_to_do(daemon):
    daemon.start(first="sys.modules['Milter'] = None")
    assert daemon.process.wait(60) == 2
    line = daemon.log()
    assert line.startswith('mxweir milter: milter.front = "libmilter", but pymilter cannot be loaded')
    assert '"asyncio"' in line
    assert "mxweir[milter]" in line
    assert line.count("\n") == 1


@both
def test_an_address_that_is_taken_is_one_line_and_status_1(daemon):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        other.listen()
        daemon.start()
        assert daemon.process.wait(60) == 1
    assert "another process is serving it" in daemon.log()
    assert daemon.socket.exists()


def test_a_group_that_does_not_exist_is_one_line_and_status_2(daemon):
    daemon.write('socket_group = "nosuchgroup"')
    daemon.start()
    assert daemon.process.wait(60) == 2
    assert 'socket_group = "nosuchgroup"' in daemon.log()


def test_a_broken_new_configuration_keeps_the_old_one_and_says_so(daemon):
    daemon.start()
    daemon.wait_ready()
    daemon.write("tag_att = 3.0")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_logged("the former one stays in force")
    assert 'did you mean \\"tag_at\\"' in daemon.log()
    daemon.write("tag_at = 3.0")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_logged("configuration reloaded")
    assert daemon.get("/readyz")[0] == 200


async def test_a_new_configuration_holds_for_the_next_message(tmp_path):
    path = tmp_path / "mxweir.toml"
    daemon = MilterDaemon(loads("[milter]\ntag_at = 5.0"), path)
    path.write_text(
        '[milter]\ntag_at = 3.0\nmax_memory = "2MiB"\n'
        '[[milter.engine]]\ntype = "spamd"\naddress = "inet:127.0.0.1:783"'
    )
    assert (daemon._policy.treatments.default.thresholds.tag_at, daemon._policy.has_engine) == (5.0, False)
    await daemon._reload()
    assert (daemon._policy.treatments.default.thresholds.tag_at, daemon._policy.has_engine) == (3.0, True)
    assert len(daemon._scanner.pools) == 1
    assert daemon._room.most == 2 * 2**20


@pytest.mark.parametrize("place", ["load", "build_policy", "scanner.build"])
async def test_whatever_fails_at_a_reload_the_former_configuration_stays_in_force(
    tmp_path, monkeypatch, capfd, place
):
    path = tmp_path / "mxweir.toml"
    path.write_text("[milter]\ntag_at = 3.0")
    daemon = MilterDaemon(loads("[milter]\ntag_at = 5.0"), path)
    scanner, policy, config = daemon._scanner, daemon._policy, daemon._config

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(f"mxweir_milter.app.{place}", fail)
    await daemon._reload()
    assert (daemon._scanner, daemon._policy, daemon._config) == (scanner, policy, config)
    daemon._log.close()
    told = capfd.readouterr().err
    assert 'event="configuration not reloaded"' in told
    assert "MemoryError: no room; the former one stays in force" in told


def test_a_setting_that_needs_a_restart_is_named(daemon):
    daemon.start()
    daemon.wait_ready()
    daemon.write('socket_mode = "0600"')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_logged("keys=milter.socket_mode")


@both
def test_its_pages_tell_that_it_lives_and_what_it_counts(daemon):
    daemon.start()
    daemon.wait_ready()
    assert daemon.get("/livez") == (200, "ok\n")
    metrics = daemon.get("/metrics")[1]
    for name in ("sessions", "in_hand", "held_bytes", "scans", "threads", "scan_seconds_bucket"):
        assert f"\nmxweir_milter_{name}" in metrics


@both
def test_it_listens_on_tcp_too(daemon):
    daemon.listen = f"inet:127.0.0.1:{free_port()}"
    daemon.write()
    daemon.start()
    daemon.wait_ready()
    socket.create_connection(("127.0.0.1", int(daemon.listen.rpartition(":")[2])), 20).close()
    assert daemon.stop() == 0


@both
def test_the_service_manager_hears_ready_watchdog_and_stopping(daemon, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        daemon.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        daemon.process.send_signal(signal.SIGTERM)
        while (heard := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert heard == b"STOPPING=1"
    assert daemon.process.wait(60) == 0
