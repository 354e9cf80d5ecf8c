import asyncio
import contextlib
import socket
import threading
import time

import pytest

from mxweir.endpoint import Inet, Unix
from mxweir_milter.engines import spamc
from mxweir_milter.engines.error import EngineError
from mxweir_milter.engines.exchange import Route
from mxweir_milter.engines.names import Names
from mxweir_milter.engines.spamc import symbols_request
from mxweir_milter.engines.spamd import Spamd
from mxweir_milter.received import prologue
from mxweir_milter.sockets import Sockets
from mxweir_milter.testing import CLIENT, ENVELOPE, message
from mxweir_milter.verdict import Reason, Scored

HAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\nSpam: False ; 0.5 / 5.0\r\n\r\nA,B"


def spamd(address):
    return Spamd(Route(address, Names(), Sockets()))


class Server:
    """A server on a thread that treats one connection as a test says, and remembers what it was sent."""

    def __init__(self, directory, conversation):
        self.received = b""
        self.saw_end = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "spamd.sock"))
        self._listener.listen()
        self._conversation = conversation
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.engine = spamd(Unix(str(directory / "spamd.sock")))

    def _serve(self):
        with self._listener, contextlib.suppress(OSError):
            peer, _ = self._listener.accept()
            with peer:
                peer.settimeout(20)
                self._conversation(self, peer)

    def read(self, peer):
        """Read until the other side has closed its half, or all."""
        while piece := peer.recv(65536):
            self.received += piece
        self.saw_end = True

    async def done(self):
        """Wait until the conversation is over."""
        await asyncio.to_thread(self._thread.join, 20)


@pytest.fixture
async def serve(tmp_path):
    servers = []

    def start(conversation):
        servers.append(server := Server(tmp_path, conversation))
        return server

    yield start
    for server in servers:
        await server.done()


def answers(*pieces):
    """A conversation: read all, then send these pieces and close."""

    def conversation(server, peer):
        server.read(peer)
        for piece in pieces:
            peer.sendall(piece)

    return conversation


async def test_the_message_is_sent_whole_with_our_headers_and_a_half_close(serve):
    server = serve(answers(HAM))
    asked = message(b"Subject: x\r\n\r\n" + b"line\r\n" * 50_000)
    assert await server.engine.scan(asked) == Scored(0.5, 5.0, ("A", "B"), "spamd")
    await server.done()
    head = prologue(CLIENT, ENVELOPE, asked.arrived)
    assert server.received == b"".join(symbols_request(head, asked.content))
    assert server.saw_end


async def test_it_is_reached_by_tcp_too():
    async def answer(reader, writer):
        await reader.read()
        writer.write(HAM)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        assert (await spamd(Inet(host, port)).scan(message())).score == 0.5


async def test_an_answer_that_comes_before_the_message_was_read_counts(serve):
    def early(server, peer):
        peer.sendall(HAM)
        with contextlib.suppress(ConnectionError):
            server.read(peer)

    assert (await serve(early).engine.scan(message(b"x" * 10**6))).score == 0.5


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([], Reason.BROKE_OFF),
        ([b"SPAMD/1.1 76 Bad header line\r\n\r\n"], Reason.BAD_ANSWER),
        ([b"garbage" * 1000], Reason.BAD_ANSWER),
        ([HAM[:-1]], Reason.BAD_ANSWER),
        ([b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 5 / 5\r\n\r\n", *[b"x" * 65536] * 50], Reason.BAD_ANSWER),
    ],
)
async def test_an_answer_that_cannot_be_relied_on_is_an_engine_error(serve, pieces, reason):
    with pytest.raises(EngineError) as caught:
        await serve(answers(*pieces)).engine.scan(message())
    assert caught.value.reason is reason


@pytest.mark.parametrize("place", ["feed", "end"])
async def test_a_fault_of_ours_at_the_answer_ends_the_exchange_and_is_told_once(serve, monkeypatch, place):
    def boom(*_):
        raise RuntimeError("boom")

    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    monkeypatch.setattr(spamc.ResponseReader, place, boom)
    with pytest.raises(RuntimeError, match="boom"):
        async with asyncio.timeout(10.0):
            await serve(answers(HAM[:-1])).engine.scan(message())
    assert told == []


async def test_nobody_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        await spamd(Unix(str(tmp_path / "absent"))).scan(message())


async def test_a_connection_cut_off_while_we_write_is_an_error(serve):
    with pytest.raises((EngineError, OSError)):
        await serve(lambda server, peer: peer.recv(1)).engine.scan(message(b"x" * 10**6))


async def test_a_cancelled_scan_closes_its_connection_at_once(serve):
    asked = threading.Event()
    closed = threading.Event()

    def dawdle(server, peer):
        server.read(peer)
        asked.set()
        try:
            while True:
                peer.sendall(b" ")
                time.sleep(0.01)
        except ConnectionError:
            closed.set()

    server = serve(dawdle)
    scan = asyncio.create_task(server.engine.scan(message()))
    assert await asyncio.to_thread(asked.wait, 20)
    scan.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scan
    assert await asyncio.to_thread(closed.wait, 20)


async def test_a_cancelled_scan_drops_what_was_not_yet_sent(serve):
    connected, cancelled = threading.Event(), threading.Event()

    def lazy(server, peer):
        peer.recv(1)
        connected.set()
        cancelled.wait(20)
        server.read(peer)

    server = serve(lazy)
    scan = asyncio.create_task(server.engine.scan(message(b"x" * 10**7)))
    assert await asyncio.to_thread(connected.wait, 20)
    scan.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scan
    cancelled.set()
    await server.done()
    assert len(server.received) < 10**7


@pytest.mark.parametrize("turns", range(6))
async def test_a_scan_cancelled_while_its_connection_is_made_drops_what_was_not_yet_sent(tmp_path, turns):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "spamd.sock"))
        listener.listen()
        scan = asyncio.create_task(spamd(Unix(str(tmp_path / "spamd.sock"))).scan(message(b"x" * 10**7)))
        for _ in range(turns):
            await asyncio.sleep(0)
        scan.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scan
        listener.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(20)
                received = await asyncio.to_thread(received_by, peer)
                assert received < 10**7


def received_by(peer):
    """How many bytes come until the other side closes."""
    return sum(iter(lambda: len(peer.recv(65536)), 0))
