"""Both clients against engines that misbehave, each in one way; and what a scan leaves behind."""

import asyncio
import gc
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mxweir.deadline import Deadline
from mxweir.endpoint import Inet, Unix
from mxweir_milter.engines.exchange import Route
from mxweir_milter.engines.names import Names
from mxweir_milter.engines.rspamd import Rspamd
from mxweir_milter.engines.spamd import Spamd
from mxweir_milter.pool import Pool
from mxweir_milter.scanner import Scanner
from mxweir_milter.sockets import Sockets
from mxweir_milter.testing import message, pool
from mxweir_milter.verdict import Failed, Reason
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.place import free_port, temporary_directory

SLACK = 20.0
"""Seconds that a loaded machine may need; what would hang, hangs for an hour."""

CLIENTS = {"spamd": Spamd, "rspamd": Rspamd}

AT_ONCE = {
    Manner.CLOSING: {Reason.BROKE_OFF},
    Manner.RESETTING: {Reason.BROKE_OFF, Reason.UNREACHABLE},
    Manner.ENDLESS: {Reason.BAD_ANSWER},
    Manner.GARBAGE: {Reason.BAD_ANSWER},
    Manner.CUT: {Reason.BAD_ANSWER},
    Manner.TOO_SHORT: {Reason.BAD_ANSWER},
    Manner.NO_SCORE: {Reason.BAD_ANSWER},
    Manner.NAN: {Reason.BAD_ANSWER},
    Manner.REFUSING: {Reason.BAD_ANSWER},
}
NEVER = [Manner.DEAF, Manner.SILENT, Manner.DRIP, Manner.TOO_LONG, Manner.SLOW]


@pytest.fixture
def place():
    with temporary_directory() as directory:
        yield directory


@pytest.fixture
def endpoint(request, place, protocol):
    kind = getattr(request, "param", "unix" if protocol == "spamd" else "inet")
    return Unix(str(place / "engine")) if kind == "unix" else Inet("127.0.0.1", free_port())


@pytest.fixture(params=CLIENTS)
def protocol(request):
    return request.param


@pytest.fixture
def hang():
    """DNS that does not answer before the test is over."""
    over = threading.Event()

    def hang(host):
        over.wait(60)
        raise OSError

    yield hang
    over.set()


def client(protocol, endpoint, names=None, tls=None):
    return CLIENTS[protocol](Route(endpoint, names or Names(), Sockets(), tls))


def sockets():
    """How many sockets this process has open."""
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(file.readlink()).startswith("socket:")
    return count


async def settled(sockets_before):
    """Wait until nothing of a scan is left: no task, no socket."""
    until = time.monotonic() + 20
    while sockets() > sockets_before or len(asyncio.all_tasks()) > 1:
        assert time.monotonic() < until
        await asyncio.sleep(0.005)


async def result_of(engine, seconds, content=b"Subject: x\r\n\r\ny\r\n"):
    """What a scan gives that has this engine only, and how long it took."""
    began = time.monotonic()
    result = await Scanner([pool(engine)], lambda _: None).scan(message(content), Deadline.after(seconds))
    return result, time.monotonic() - began


@pytest.mark.parametrize("manner", AT_ONCE, ids=str)
async def test_an_engine_that_breaks_its_word_is_found_out_at_once(protocol, endpoint, manner):
    before = sockets()
    with HostileEngine(protocol, endpoint, manner):
        result, took = await result_of(client(protocol, endpoint), 60.0)
        if (protocol, manner) == ("spamd", Manner.TOO_SHORT):
            # The score stands in spamd's headers; but for the end of the list of symbols it is all there.
            assert result.score == 0.1
        else:
            assert isinstance(result, Failed)
            assert result.reason in AT_ONCE[manner], result
        assert took < 60.0 - SLACK
    await settled(before)


@pytest.mark.parametrize("manner", NEVER, ids=str)
async def test_an_engine_that_does_not_come_to_an_end_is_left_at_the_deadline(protocol, endpoint, manner):
    before = sockets()
    with HostileEngine(protocol, endpoint, manner, seconds=3600.0):
        result, took = await result_of(client(protocol, endpoint), 0.2)
        assert isinstance(result, Failed)
        assert (result.reason, result.engine) == (Reason.DEADLINE, protocol)
        assert 0.19 <= took < 0.2 + SLACK
    await settled(before)


async def test_an_engine_that_reads_nothing_of_a_large_message_is_left_at_the_deadline(protocol, endpoint):
    before = sockets()
    with HostileEngine(protocol, endpoint, Manner.DEAF):
        result, took = await result_of(client(protocol, endpoint), 0.2, b"A: b\r\n\r\n" + b"x" * 10**7)
        assert result.reason is Reason.DEADLINE
        assert took < 0.2 + SLACK
    await settled(before)


async def test_an_engine_that_accepts_no_connection_is_left_at_the_deadline(protocol, place):
    before = sockets()
    at = Inet("127.0.0.1", free_port())
    with HostileEngine(protocol, at, Manner.NOT_ACCEPTING):
        engine_sockets = sockets()
        result, took = await result_of(client(protocol, at), 0.2)
        assert result.reason is Reason.DEADLINE
        assert took < 0.2 + SLACK
        await settled(engine_sockets)
    await settled(before)


async def test_a_unix_socket_with_a_full_backlog_is_found_out_at_once(protocol, place):
    at = Unix(str(place / "engine"))
    with HostileEngine(protocol, at, Manner.NOT_ACCEPTING):
        result, took = await result_of(client(protocol, at), 60.0)
    assert result == Failed(Reason.UNREACHABLE, protocol, "it accepts no connections: its backlog is full")
    assert took < 60.0 - SLACK


async def test_an_engine_that_has_come_to_its_senses_is_believed(protocol, endpoint):
    with HostileEngine(protocol, endpoint, Manner.GARBAGE, score=7.0) as engine:
        asked = client(protocol, endpoint)
        assert (await result_of(asked, 60.0))[0].reason is Reason.BAD_ANSWER
        engine.manner = Manner.PROMPT
        result, _ = await result_of(asked, 60.0, b"A: b\r\n\r\n" + b"line\r\n" * 100_000)
        assert (result.score, result.engine, result.symbols) == (7.0, protocol, ("BAYES_00", "DKIM_VALID"))


async def test_dns_that_hangs_does_not_move_the_deadline(protocol, hang):
    result, took = await result_of(client(protocol, Inet("engine.example", 783), Names(hang)), 0.2)
    assert result.reason is Reason.DEADLINE
    assert took < 0.2 + SLACK


async def test_of_several_addresses_of_a_name_the_next_is_tried(protocol, place):
    at = Inet("127.0.0.1", free_port())
    names = Names(lambda _: ["127.0.0.2", "127.0.0.1"])
    with HostileEngine(protocol, at, Manner.PROMPT):
        result, _ = await result_of(client(protocol, Inet("engine.example", at.port), names), 60.0)
        assert result.score == 0.1


async def test_a_connection_that_breaks_off_at_once_leaves_no_descriptor_to_be_closed_twice(protocol, place):
    """As an object that still believes to own one would do when it is collected: a warning fails the test."""
    at = Unix(str(place / "engine"))
    with HostileEngine(protocol, at, Manner.CLOSING) as engine:
        for manner in (Manner.CLOSING, Manner.RESETTING):
            engine.manner = manner
            made = Scanner([pool(client(protocol, at))], lambda _: None)
            scans = [made.scan(message(), Deadline.after(60)) for _ in range(100)]
            assert {type(result) for result in await asyncio.gather(*scans)} == {Failed}
            gc.collect()


# Ten thousand


async def cancelled(scanner, count, together=250):
    """Begin scans, give each a few turns of the loop, and cancel them, so many together."""
    for begun in range(0, count, together):
        scans = [asyncio.create_task(scanner.scan(message(), Deadline.after(3600))) for _ in range(together)]
        for _ in range(begun // together % 8):
            await asyncio.sleep(0)
        for scan in scans:
            scan.cancel()
        await asyncio.gather(*scans, return_exceptions=True)


def in_hand(*pools: Pool):
    return [lane.gate.in_hand for one in pools for lane in one.lanes] + [one.waiting for one in pools]


@pytest.mark.parametrize(
    ("protocol", "endpoint", "manner", "slots"),
    [
        ("spamd", "unix", Manner.SILENT, 20),
        ("rspamd", "inet", Manner.SILENT, 1000),
        ("rspamd", "inet", Manner.NOT_ACCEPTING, 20),
    ],
    indirect=["endpoint"],
    ids=str,
)
async def test_ten_thousand_cancelled_scans_leave_no_task_no_socket_and_no_slot(
    protocol, endpoint, manner, slots
):
    """With a slot for each of them, and with so few that most are cancelled while they wait for one."""
    before = sockets()
    with HostileEngine(protocol, endpoint, manner):
        made = pool(client(protocol, endpoint), slots=slots)
        await cancelled(Scanner([made], lambda _: None, 3600.0), 10_000)
        assert in_hand(made) == [0, 0]
        assert len(asyncio.all_tasks()) == 1
    await settled(before)  # the engine's side too, which is in this process


async def test_ten_thousand_scans_cancelled_while_dns_hangs_leave_nothing_but_one_thread(protocol, hang):
    made = pool(client(protocol, Inet("engine.example", 783), Names(hang)), slots=100)
    before = sockets()
    await cancelled(Scanner([made], lambda _: None, 3600.0), 10_000)
    assert in_hand(made) == [0, 0]
    await settled(before)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for engine.example, signed by itself, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=engine.example"),
            *("-addext", "subjectAltName=DNS:engine.example"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def behind_tls(certificate, answer=None):
    """A server that answers with a score over TLS, or never."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    body = b'{"is_skipped":false,"score":3.5,"required_score":15.0,"action":"no action","symbols":{}}'

    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
            else:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


def tls_client(port, ca=None, host="engine.example"):
    context = ssl.create_default_context(cafile=ca)
    return client("rspamd", Inet(host, port), Names(lambda _: ["127.0.0.1"]), context)


async def test_over_tls_an_engine_with_the_right_certificate_is_asked(certificate):
    async with await behind_tls(certificate) as server:
        port = server.sockets[0].getsockname()[1]
        result, _ = await result_of(tls_client(port, certificate[0]), 60.0)
        assert result.score == 3.5


@pytest.mark.parametrize(("trusted", "host"), [(False, "engine.example"), (True, "other.example")])
async def test_over_tls_a_certificate_of_somebody_else_is_refused(certificate, trusted, host):
    async with await behind_tls(certificate) as server:
        port = server.sockets[0].getsockname()[1]
        ca = certificate[0] if trusted else None
        result, _ = await result_of(tls_client(port, ca, host), 60.0)
    assert result.reason is Reason.UNREACHABLE
    assert "CERTIFICATE_VERIFY_FAILED" in result.detail


async def test_over_tls_an_engine_that_does_not_shake_hands_is_left_at_the_deadline(certificate):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = sockets()
        engine = tls_client(listener.getsockname()[1], certificate[0])
        result, took = await result_of(engine, 0.2)
        assert result.reason is Reason.DEADLINE
        assert took < 0.2 + SLACK
        await settled(before)


async def test_scans_cancelled_over_tls_leave_no_task_and_no_socket(certificate):
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        made = pool(tls_client(listener.getsockname()[1], certificate[0]), slots=100)
        before = sockets()
        await cancelled(Scanner([made], lambda _: None, 3600.0), 1000, together=100)
        assert in_hand(made) == [0, 0]
        await settled(before)
