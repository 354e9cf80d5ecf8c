"""The measuring instruments are measured: what the C programs send, accept and report."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mxweir.config import load as load_config
from mxweir.endpoint import Unix
from mxweir_bench import load, milters, servers, tools
from mxweir_bench.load import InvalidRunError
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_milter.engines.spamc import ResponseReader
from mxweir_milter.verdict import Scored
from mxweir_ops.lab import place
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import Request, RequestReader


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return tools.build(tmp_path_factory.mktemp("tools"))


Argv = list[str | Path]


@pytest.fixture
def noop(built: Tools, tmp_path: Path) -> Iterator[Server]:
    with servers.noop(built.noop, tmp_path, unix=True) as server:
        yield server


def requests(built: Tools, *options: str) -> list[Request]:
    done = subprocess.run([built.policyload, "--print", *options], capture_output=True, check=True)
    return [Request(*found) for found in RequestReader().feed(done.stdout)]


def test_the_generated_request_is_one_that_the_daemon_reads(built: Tools) -> None:
    (raw,) = load.requests(built.policyload, 1, keys=10)
    request = Request(*RequestReader().feed(raw)[0])
    assert request.protocol_state == b"RCPT"
    assert request.recipient.split(b"@")[1].decode() in servers.RECIPIENT_DOMAINS
    assert 600 < len(raw) < 800


def test_no_two_generated_requests_are_the_same_question(built: Tools) -> None:
    instances = [request.instance for request in requests(built, "--requests", "1000", "--keys", "1")]
    assert len(set(instances)) == 1000


def test_a_sweep_sees_every_key_once(built: Tools) -> None:
    senders = [request.sender for request in requests(built, "--sweep", "--keys", "50", "--requests", "50")]
    assert len(set(senders)) == 50


def test_every_request_of_a_run_is_answered_and_counted(built: Tools, noop: Server) -> None:
    run = load.run(built.policyload, noop, ["--conns", "8", "--requests", "500"])
    assert run.requests == 500
    assert 0 < run.p50_ms <= run.p99_ms <= run.max_ms


class Listening(socketserver.StreamRequestHandler):
    """Answers what is asked over one connection, and keeps it."""

    asked: list[Request]

    def handle(self) -> None:
        reader = RequestReader()
        while data := self.connection.recv(65536):
            for found in reader.feed(data):
                self.asked.append(Request(*found))
                self.connection.sendall(b"action=DUNNO\n\n")


def test_a_generator_on_each_core_has_its_share_and_there_is_one_report(
    built: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Listening, "asked", [], raising=False)
    path = f"{tmp_path}/listening"
    argv: Argv = [built.policyload, "--connect", f"unix:{path}", "--each-core"]
    argv += ["--conns", "32", "--sweep", "--keys", "501", "--requests", "501"]
    with socketserver.ThreadingUnixStreamServer(path, Listening) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(argv, capture_output=True, check=True)
        server.shutdown()
    told = json.loads(done.stdout)
    assert (told["requests"], told["actions"]) == (501, {"DUNNO": 501})
    assert 0 < told["us"]["p50"] <= told["us"]["p99"] <= told["us"]["max"]
    assert len({request.sender for request in Listening.asked}) == 501
    processes = {request.instance.split(b".")[0] for request in Listening.asked}
    assert len(processes) == min(32, len(os.sched_getaffinity(0)))


def test_where_one_of_several_generators_fails_there_is_no_report(built: Tools, tmp_path: Path) -> None:
    argv: Argv = [built.policyload, "--connect", f"unix:{tmp_path}/nobody", "--each-core"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_the_no_op_server_answers_a_request_that_comes_in_pieces_once(noop: Server, built: Tools) -> None:
    (raw,) = load.requests(built.policyload, 1, keys=10)
    with servers.connect(noop.address) as client:
        for byte in raw:
            client.sendall(bytes([byte]))
        assert client.recv(100) == b"action=DUNNO\n\n"
        client.sendall(raw + raw)
        both = b""
        while len(both) < 28:
            both += client.recv(100)
        assert both == b"action=DUNNO\n\n" * 2


def test_a_run_with_another_answer_than_dunno_is_not_valid(built: Tools, tmp_path: Path) -> None:
    refusing = f"unix:{tmp_path}/refusing"
    with servers.running(
        "refusing", [built.noop, refusing, "REJECT no"], refusing, tmp_path / "log"
    ) as child:
        server = Server("refusing", refusing, servers.members(child), tmp_path / "log")
        with pytest.raises(InvalidRunError, match="REJECT"):
            load.run(built.policyload, server, ["--requests", "10"])


@pytest.mark.parametrize("answer", ["", " DUNNO", "DUNNO\naction=OK", "DUNNO\nrubbish"])
def test_a_malformed_answer_is_bad(built: Tools, tmp_path: Path, answer: str) -> None:
    address = f"unix:{tmp_path}/malformed"
    with servers.running("malformed", [built.noop, address, answer], address, tmp_path / "log"):
        argv: Argv = [built.policyload, "--connect", address, "--requests", "10"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["bad"] == 10


def test_a_server_that_stands_still_is_charged_for_what_it_kept_waiting(built: Tools, noop: Server) -> None:
    """The open loop counts from when a request was due, not from when it could be sent."""
    argv: Argv = [
        built.policyload,
        "--connect",
        noop.address,
        "--rate",
        "100",
        "--seconds",
        "0.6",
        "--conns",
        "1",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as loading:
        os.kill(noop.pids()[0], signal.SIGSTOP)
        with suppress(subprocess.TimeoutExpired):
            loading.wait(2.0)  # longer than all requests are due
        os.kill(noop.pids()[0], signal.SIGCONT)
        told = json.loads(loading.communicate()[0])
    assert told["us"]["p50"] > 50_000


def test_only_loopback_is_loaded(built: Tools) -> None:
    argv: Argv = [built.policyload, "--connect", "192.0.2.1:25"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "loopback" in done.stderr


def test_the_measured_configuration_is_a_valid_one(tmp_path: Path) -> None:
    config = load_config(servers.configure(tmp_path / "home", "127.0.0.1:10040"))
    assert tuple(limit.name for limit in config.limit) == servers.LIMITS
    assert config.log.level == "warning"


@pytest.fixture
def engine(built: Tools, tmp_path: Path) -> Iterator[milters.Engine]:
    with milters.engine(built.fakespamd, tmp_path) as server:
        yield server


def ask(engine: milters.Engine, verb: bytes, message: bytes) -> bytes:
    with place.connect(engine.endpoint) as client:
        client.sendall(b"%b SPAMC/1.5\r\nContent-length: %d\r\n\r\n%b" % (verb, len(message), message))
        return client.makefile("rb").read()


def test_the_scanner_that_answers_at_once_is_one_that_our_milter_understands(engine: milters.Engine) -> None:
    result = ResponseReader("spamd").feed(ask(engine, b"SYMBOLS", b"Subject: x\r\n\r\nHello\r\n"))
    assert result == Scored(0.1, 5.0, ("BAYES_00", "DKIM_VALID"), "spamd")


def test_the_scanner_that_answers_at_once_gives_a_message_back_with_its_score(engine: milters.Engine) -> None:
    message = b"Subject: x\r\n\r\n" + b"Hello\r\n" * 100_000
    answer = ask(engine, b"PROCESS", message)
    assert answer.endswith(b"tests=BAYES_00,DKIM_VALID\r\n" + message)


def test_the_scanner_that_answers_at_once_counts_what_it_has_answered(engine: milters.Engine) -> None:
    for _ in range(3):
        ask(engine, b"SYMBOLS", b"\r\n")
    place.connect(engine.endpoint).close()
    assert engine.answered() == 3


def test_the_process_with_the_hostile_engines_tells_at_its_end_what_they_did(tmp_path: Path) -> None:
    unix, tcp = Unix(str(tmp_path / "spamd")), place.free_endpoint()
    words = [f"spamd={unix}", f"rspamd={tcp}"]
    argv: Argv = [sys.executable, "-P", Path(load.__file__).with_name("hostility.py"), "1", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as hostile:
        assert wait_until(lambda: Path(unix.path).exists(), 20)
        wait_until(lambda: hostile.poll() is not None, 1.5)
        hostile.terminate()
        told = json.loads(hostile.communicate()[0])
    assert len(told) == 2
    assert sum(count for engine in told for count in engine["turns"].values()) > 0
