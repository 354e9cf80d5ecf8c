"""The front on a real socket, with a stub for the scanner; what it says is test_dialogue.py's business."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from mxweir.config import Milter as Settings
from mxweir.endpoint import Unix
from mxweir.events import Scanned, Trouble
from mxweir.service import ServiceError
from mxweir.testing import Recorder
from mxweir_milter.fronts import asyncio as front_module
from mxweir_milter.fronts.asyncio import AsyncioFront
from mxweir_milter.policy import Treatment, Treatments
from mxweir_milter.room import Room
from mxweir_milter.session import Policy, Session
from mxweir_milter.testing import score
from mxweir_ops.lab.place import free_endpoint

SLACK = 30.0
"""Seconds that a loaded machine may need; what would hang, hangs for an hour."""

ENVELOPE = [(b"M", b"<a@sender.example>\0"), (b"R", b"<b@example.org>\0"), (b"T", b"")]
CONTENT = [(b"L", b"Subject\0 hello\0"), (b"B", b"hello\r\n")]


class Scans:
    """A scanner that the test answers for."""

    def __init__(self, result=None):
        self.result = result
        self.asked = []
        self.cancelled = 0
        self.running = 0
        self.wanted = asyncio.Event()

    async def scan(self, message, deadline):
        self.asked.append(message)
        self.wanted.set()
        self.running += 1
        try:
            if self.result is None:
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Serving:
    """A front that serves, and what it told."""

    def __init__(self, path, scans, deadline=3600.0, **settings):
        self.scans = scans
        self.recorder = Recorder()
        self.room = Room(10**9)
        self.endpoint = settings.pop("listen", Unix(str(path / "milter")))
        loop = asyncio.get_running_loop()
        policy = Policy(deadline, 10**6, Treatments(Treatment()), None, frozenset(), (), True)
        self.front = AsyncioFront(
            Settings(listen=self.endpoint, **settings),
            lambda: Session(lambda: policy, loop.time, loop.time, self.room),
            scans.scan,
            self.recorder,
        )

    def told(self, kind):
        return [event for event in self.recorder.events if isinstance(event, kind)]

    def troubles(self):
        return [event.what for event in self.told(Trouble)]

    async def until(self, true):
        async with asyncio.timeout(SLACK):
            while not true():  # noqa: ASYNC110 -- it may become true by anybody's doing
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(path, scans, **settings):
    server = Serving(path, scans, **settings)
    await server.front.open()
    try:
        yield server
    finally:
        await server.front.stop()


class MailServer:
    """One connection to the front."""

    def __init__(self, server):
        self._server = server

    async def __aenter__(self):
        endpoint = self._server.endpoint
        if isinstance(endpoint, Unix):
            self._reader, self._writer = await asyncio.open_unix_connection(endpoint.path)
        else:
            self._reader, self._writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        return self

    async def __aexit__(self, *error):
        self._writer.close()

    def send(self, *packets):
        for letter, data in packets:
            self._writer.write((1 + len(data)).to_bytes(4) + letter + data)

    async def hear(self):
        async with asyncio.timeout(SLACK):
            length = int.from_bytes(await self._reader.readexactly(4))
            packet = await self._reader.readexactly(length)
        return packet[:1], packet[1:]

    async def negotiate(self, steps=0x1FFFFF):
        self.send((b"O", (6).to_bytes(4) + (0x1FF).to_bytes(4) + steps.to_bytes(4)))
        return await self.hear()

    async def begin(self):
        """Everything up to the end of a message."""
        await self.negotiate()
        self.send((b"C", b"mail.sender.example\0004\x12\x67203.0.113.9\0"), *ENVELOPE, *CONTENT)

    async def end(self):
        self.send((b"E", b""))
        answer = [await self.hear()]
        while answer[-1][0] not in b"acry":
            answer.append(await self.hear())
        return answer

    async def is_over(self):
        async with asyncio.timeout(SLACK):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True


async def test_a_message_is_scanned_and_answered(tmp_path):
    async with serving(tmp_path, Scans(score(1.0))) as server, MailServer(server) as mta:
        await mta.begin()
        answer = await mta.end()
        assert answer[0] == (b"h", b"X-Spam-Flag\0 NO\0")
        assert answer[-1] == (b"a", b"")
        assert [event.outcome for event in server.told(Scanned)] == ["ham"]
        assert (server.front.sessions(), server.front.in_hand(), server.room.used) == (1, 0, 0)


async def test_several_messages_of_a_session_are_answered_one_by_one(tmp_path):
    async with serving(tmp_path, Scans(score(1.0))) as server, MailServer(server) as mta:
        await mta.begin()
        for _ in range(3):
            assert (await mta.end())[-1] == (b"a", b"")
            mta.send(*ENVELOPE)
        assert len(server.told(Scanned)) == 3


async def test_it_serves_tcp_too(tmp_path):
    async with (
        serving(tmp_path, Scans(score(1.0)), listen=free_endpoint()) as server,
        MailServer(server) as mta,
    ):
        await mta.begin()
        assert (await mta.end())[-1] == (b"a", b"")


async def test_many_sessions_with_a_scanner_that_is_silent_are_all_answered_by_the_deadline(tmp_path):
    scans = Scans()
    async with serving(tmp_path, scans, deadline=0.3) as server:
        mtas = [await MailServer(server).__aenter__() for _ in range(50)]
        for mta in mtas:
            await mta.begin()
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(mta.end() for mta in mtas))
        assert asyncio.get_running_loop().time() - began < 0.3 + SLACK
        assert {answer[0] for answer in answers} == {(b"h", b"X-Spam-Status\0 unscanned, reason=deadline\0")}
        await server.until(lambda: scans.running == 0)
        assert (scans.cancelled, server.room.used) == (50, 0)
        for mta in mtas:
            await mta.__aexit__()


async def test_while_one_session_waits_for_its_scan_another_one_is_answered(tmp_path):
    scans = Scans()
    async with serving(tmp_path, scans) as server, MailServer(server) as slow, MailServer(server) as quick:
        await slow.begin()
        slow.send((b"E", b""))
        await server.until(lambda: scans.running == 1)
        scans.result = score(1.0)
        await quick.begin()
        assert (await quick.end())[-1] == (b"a", b"")
        assert server.front.in_hand() == 1


async def test_a_scanner_that_ignores_the_deadline_and_being_cancelled_holds_nobody_up(tmp_path):
    class Stubborn(Scans):
        async def scan(self, message, deadline):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(0.2)
                raise

    async with serving(tmp_path, Stubborn(), deadline=0.1) as server, MailServer(server) as mta:
        await mta.begin()
        answer = await mta.end()
        assert answer[0] == (b"h", b"X-Spam-Status\0 unscanned, reason=deadline\0")
        await asyncio.sleep(0.3)
        assert (await mta.end())[0][0] == b"h"


async def test_a_scanner_that_fails_costs_the_scan_and_not_the_message(tmp_path):
    scans = Scans(RuntimeError("boom"))
    async with serving(tmp_path, scans) as server, MailServer(server) as mta:
        await mta.begin()
        assert (await mta.end())[0] == (b"h", b"X-Spam-Status\0 unscanned, reason=internal error\0")
        assert server.troubles() == ["internal error at end of message"]


async def test_a_mail_server_that_waits_is_told_from_time_to_time_that_it_does_not_wait_in_vain(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(front_module, "_PROGRESS", 0.05)
    heard = asyncio.Event()

    class Slow(Scans):
        async def scan(self, message, deadline):
            await heard.wait()
            return score(1.0)

    async with serving(tmp_path, Slow()) as server, MailServer(server) as mta:
        await mta.begin()
        mta.send((b"E", b""))
        assert [await mta.hear() for _ in range(2)] == [(b"p", b"")] * 2
        heard.set()
        while (said := await mta.hear()) == (b"p", b""):
            pass
        assert said == (b"h", b"X-Spam-Flag\0 NO\0")


async def test_a_sign_that_finds_nobody_is_the_last_one(tmp_path):
    class Bells(dict[int, Callable[[], object]]):
        def after(self, _, call):
            bell = SimpleNamespace(cancel=lambda: self.pop(id(call), None))
            self[id(call)] = call
            return bell

    async with serving(tmp_path, Scans()) as server, MailServer(server) as mta:
        bells = server.front.alarms = Bells()
        await mta.begin()
        mta.send((b"E", b""))
        await server.until(lambda: bells)
        (peer,) = server.front.peers
        mta._writer.get_extra_info("socket").shutdown(socket.SHUT_RD)
        bells.popitem()[1]()
        assert (peer.is_open, bells) == (False, {})


@pytest.mark.parametrize("how", ["hang up", "abort", "quit"])
async def test_nobody_scans_for_a_mail_server_that_no_longer_waits_and_no_verdict_is_claimed(tmp_path, how):
    scans = Scans()
    async with serving(tmp_path, scans) as server, MailServer(server) as mta:
        await mta.begin()
        mta.send((b"E", b""))
        await server.until(lambda: scans.running == 1)
        if how == "hang up":
            mta._writer.close()
        else:
            mta.send((b"A" if how == "abort" else b"Q", b""))
        await server.until(lambda: scans.running == 0)
        await server.until(lambda: server.told(Scanned))
        assert scans.cancelled == 1
        assert [event.reason for event in server.told(Scanned)] == ["answer not heard"]
        assert server.room.used == 0


async def test_after_an_abort_the_session_goes_on(tmp_path):
    scans = Scans()
    async with serving(tmp_path, scans) as server, MailServer(server) as mta:
        await mta.begin()
        mta.send((b"E", b""), (b"A", b""))
        await server.until(lambda: server.told(Scanned))
        scans.result = score(1.0)
        mta.send(*ENVELOPE)
        assert (await mta.end())[-1] == (b"a", b"")


async def test_a_session_that_ends_amid_a_message_leaves_nothing(tmp_path):
    async with serving(tmp_path, Scans()) as server:
        async with MailServer(server) as mta:
            await mta.begin()
            await server.until(lambda: server.room.used > 0)
        await server.until(lambda: server.front.sessions() == 0)
        assert server.room.used == 0
        assert server.recorder.events == []


async def test_a_quit_ends_the_connection_and_one_for_another_client_does_not(tmp_path):
    async with serving(tmp_path, Scans(score(1.0))) as server, MailServer(server) as mta:
        await mta.begin()
        mta.send((b"K", b""), (b"C", b"other\0U"), *ENVELOPE)
        await mta.end()
        assert server.scans.asked[0].client.name == "other"
        mta.send((b"Q", b""))
        assert await mta.is_over()


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0", b"\0\0\0\1T", b"\xff" * 100])
async def test_what_is_no_milter_protocol_is_hung_up_on_with_a_line(tmp_path, rubbish):
    async with serving(tmp_path, Scans()) as server, MailServer(server) as mta:
        mta._writer.write(rubbish)
        assert await mta.is_over()
        assert server.troubles() == ["milter protocol error"]


async def test_a_command_before_the_answer_is_no_milter_protocol_and_ends_the_scan(tmp_path):
    scans = Scans()
    async with serving(tmp_path, scans) as server, MailServer(server) as mta:
        await mta.begin()
        mta.send((b"E", b""), *ENVELOPE)
        assert await mta.is_over()
        await server.until(lambda: scans.running == 0)
        assert "milter protocol error" in server.troubles()


async def test_a_peer_that_asks_and_reads_no_answer_is_hung_up_on(tmp_path, monkeypatch):
    monkeypatch.setattr(front_module, "_UNSENT", 1000)
    async with serving(tmp_path, Scans()) as server, MailServer(server) as mta:
        await mta.negotiate(steps=0)
        mta._reader._transport.pause_reading()
        for _ in range(3000):
            mta.send(*[(b"T", b"")] * 100)
            if "milter protocol error" in server.troubles():
                break
            await asyncio.sleep(0)
        await server.until(lambda: server.troubles() == ["milter protocol error"])
        await server.until(lambda: server.front.sessions() == 0)


async def test_more_sessions_than_there_may_be_are_hung_up_on(tmp_path):
    async with serving(tmp_path, Scans(score(1.0)), max_sessions=1) as server, MailServer(server) as first:
        await first.begin()
        async with MailServer(server) as second:
            assert await second.is_over()
        assert server.troubles() == ["too many sessions"]
        assert (await first.end())[-1] == (b"a", b"")
        first.send((b"Q", b""))
        await server.until(lambda: server.front.sessions() == 0)
        async with MailServer(server) as third:
            assert (await third.negotiate())[0] == b"O"


async def test_sessions_that_are_open_go_on_when_no_new_ones_are_taken(tmp_path):
    async with serving(tmp_path, Scans(score(1.0))) as server, MailServer(server) as mta:
        await mta.begin()
        server.front.refuse_new()
        with pytest.raises(OSError, match="No such file"):
            await MailServer(server).__aenter__()
        assert (await mta.end())[-1] == (b"a", b"")


async def test_closing_the_idle_sessions_leaves_those_with_a_message_in_hand(tmp_path):
    async with serving(tmp_path, Scans(score(1.0))) as server, MailServer(server) as idle:
        await idle.negotiate()
        async with MailServer(server) as busy:
            await busy.begin()
            await server.until(lambda: server.front.in_hand() == 1)
            server.front.close_idle()
            assert await idle.is_over()
            assert (await busy.end())[-1] == (b"a", b"")


async def test_a_stop_answers_what_is_being_scanned_as_unscanned(tmp_path):
    scans = Scans()
    async with serving(tmp_path, scans) as server, MailServer(server) as mta:
        await mta.begin()
        mta.send((b"E", b""))
        await server.until(lambda: scans.running == 1)
        await server.front.stop()
        assert await mta.hear() == (b"h", b"X-Spam-Status\0 unscanned, reason=deadline\0")
        assert await mta.hear() == (b"a", b"")
        assert server.front.sessions() == 0
        await server.until(lambda: scans.running == 0)


async def test_an_answer_for_which_the_socket_has_no_room_arrives_whole_and_in_order(tmp_path):
    forged = [(b"L", b"X-Spam-%d\0 yes\0" % number) for number in range(600)]
    async with serving(tmp_path, Scans(score(1.0))) as server, MailServer(server) as mta:
        await mta.negotiate()
        (peer,) = server.front.peers
        peer._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        mta.send(*ENVELOPE, *forged, *CONTENT, (b"E", b""))
        removed = [await mta.hear() for _ in forged]
        assert removed == [(b"m", b"\0\0\0\1x-spam-%d\0\0" % number) for number in range(600)]
        assert [letter for letter, _ in [await mta.hear() for _ in range(5)]] == [*(b"h",) * 4, b"a"]
        mta.send(*ENVELOPE, *CONTENT, (b"E", b""))
        assert [letter for letter, _ in [await mta.hear() for _ in range(5)]] == [*(b"h",) * 4, b"a"]


async def test_an_address_that_is_taken_is_told_in_one_line(tmp_path):
    async with serving(tmp_path, Scans()) as server:
        other = AsyncioFront(Settings(listen=server.endpoint), None, None, Recorder())  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match="another process is serving it"):
            await other.open()


async def test_ten_thousand_scans_that_were_cancelled_leave_no_task_and_no_memory(tmp_path):
    scans = Scans()
    async with serving(tmp_path, scans) as server, MailServer(server) as mta:
        await mta.begin()
        before = len(asyncio.all_tasks())
        for _ in range(100):
            for _ in range(100):
                mta.send((b"M", b"<a@b>\0"), (b"B", b"x"), (b"E", b""), (b"A", b""))
            await mta._writer.drain()
        await server.until(lambda: scans.running == 0)
        await server.until(lambda: len(server.told(Scanned)) == 10_000)
        await server.until(lambda: len(asyncio.all_tasks()) <= before + 1)
        assert server.room.used == 0


async def test_messages_in_hand_are_counted_for_a_scrape_while_sessions_end(tmp_path):
    class Ending:
        @property
        def in_message(self):
            server.front.peers.discard(self)
            return True

    async with serving(tmp_path, Scans()) as server:
        server.front.peers |= {Ending(), Ending(), Ending()}
        assert server.front.in_hand() == 3
