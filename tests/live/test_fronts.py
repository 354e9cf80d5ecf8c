"""What the milter's fronts owe Postfix: a deadline, bounded memory, and restarts that nobody notices."""

import asyncio
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mxweir.endpoint import Unix
from mxweir_ops.lab.client import send
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.mta import Mta
from mxweir_ops.lab.place import free_endpoint, temporary_directory
from mxweir_ops.lab.process import program, wait_until
from mxweir_ops.lab.sink import Delivery
from mxweir_ops.lab.stack import Plan, Stack

FRONTS = ("asyncio", "libmilter")
JSON = '[log]\nformat = "json"\n'


@contextmanager
def running(engine: HostileEngine, directory: Path, milter: str, *, held: bool = False) -> Iterator[Stack]:
    """A stack whose milter scans everybody's mail with this engine, however many messages come at once."""
    assert isinstance(engine.endpoint, Unix)
    plan = Plan(
        engine=engine.endpoint,
        milter=f"skip = []\n{milter}",
        rest=f"[milter.breaker]\nmin_calls = 10000\n{JSON}",
        settings={"default_process_limit": "300"},
        held=held,
    )
    with Stack(directory, plan) as stack:
        stack.config_file.write_text(
            stack.config_file.read_text().replace('type = "spamd"', 'type = "spamd"\nmax_scans = 1000')
        )
        stack.milter.stop()
        stack.milter.start()
        yield stack


# A burst


async def reply(reader: asyncio.StreamReader) -> bytes:
    line = b"   -"
    while line[3:4] == b"-":
        line = await reader.readline()
    return line


async def until_the_end(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One message up to its end, which is not yet sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert (await reply(reader)).startswith(b"220")
    for command in (b"EHLO x", b"MAIL FROM:<a@sender.example>", b"RCPT TO:<anna@example.org>", b"DATA"):
        writer.write(command + b"\r\n")
        assert (await reply(reader))[:1] in b"23"
    writer.write(b"Subject: x\r\n\r\nhello\r\n")
    await writer.drain()
    return reader, writer


async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, float]:
    began = time.monotonic()
    writer.write(b".\r\n")
    said = await reply(reader)
    writer.close()
    return said, time.monotonic() - began


@pytest.mark.slow
def test_two_hundred_messages_that_end_at_once_with_a_silent_scanner_are_all_answered_in_time() -> None:
    # How closely the deadline is kept is measured by bench/ (burst), on a machine that does nothing else.
    # This fails where answers are given one after the other, or a few at a time.
    messages, deadline, slack = 200, 2.0, 30.0

    async def burst(port: int) -> list[tuple[bytes, float]]:
        talks = await asyncio.gather(*(until_the_end(port) for _ in range(messages)))
        return await asyncio.gather(*(end(*talk) for talk in talks))

    with temporary_directory() as directory:
        engine = HostileEngine("spamd", Unix(str(directory / "engine")), Manner.SILENT)
        with engine, running(engine, directory, f'deadline = "{deadline:g}s"') as stack:
            answers = asyncio.run(burst(stack.port))
            assert {said[:3] for said, _ in answers} == {b"250"}
            assert max(seconds for _, seconds in answers) < deadline + slack
            # The answers leave before their lines: Postfix's clients may be told first.
            assert wait_until(lambda: len(stack.milter.records(event="scan")) >= messages, 60)
            scans = stack.milter.records(event="scan")
            assert {record["reason"] for record in scans} == {"deadline"}
            assert max(record["ms"] for record in scans) < 1000 * (deadline + slack)


def test_a_timeout_of_postfixs_that_is_too_short_does_not_lose_the_verdict_of_a_longer_scan() -> None:
    with temporary_directory() as directory:
        engine = HostileEngine("spamd", Unix(str(directory / "engine")), Manner.SLOW, seconds=6.0)
        with engine, running(engine, directory, 'deadline = "10s"') as stack:
            milter = stack.mx.settings["smtpd_milters"].replace("content_timeout=15s", "content_timeout=4s")
            assert "content_timeout=4s" in milter
            stack.mx.reload({"smtpd_milters": milter})
            outcome = send(stack.port, "a@sender.example", ["anna@example.org"], letter())
            assert outcome.accepted
            assert wait_until(lambda: len(stack.maildir.deliveries()) >= 1, 60)
            assert stack.maildir.deliveries()[0].header("X-Spam-Flag") == "NO"


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_two_hundred_connections_that_each_send_twenty_megabytes_fill_no_memory(front: str) -> None:
    connections, size, most = 200, 20 * 2**20, 64 * 2**20
    with temporary_directory() as directory:
        engine = HostileEngine("spamd", Unix(str(directory / "engine")), Manner.SILENT)
        (directory / "state").mkdir()
        setup = Setup(
            addresses=Addresses.in_directory(directory),
            state_dir=directory / "state",
            domains_file=directory / "domains",
            engine=engine.endpoint,
            milter=f'front = "{front}"\nmax_scan_size = "32MiB"\nmax_memory = "64MiB"\ndeadline = "4m"\n',
            rest=JSON,
        )
        (directory / "mxweir.toml").write_text(setup.toml())
        with engine, Daemon("milter", directory / "mxweir.toml") as milter:
            before = resident(milter)
            sessions = [Mta(Unix(str(directory / "milter")), 200) for _ in range(connections)]
            body = b"x" * size
            for session in sessions:
                session.negotiate()
                session.greet()
            # While they are scanned, which is until the engine is gone, the first few fill all the room.
            answers = in_threads(
                sessions,
                lambda session: session.deliver(body=body)[-1],
                connections - most // size,
                engine.stop,
            )
            assert answers == [(b"a", b"")] * connections
            for session in sessions:
                session.close()
            assert wait_until(lambda: len(milter.records(event="scan")) >= connections, 60)
            reasons = Counter(record["reason"] for record in milter.records(event="scan"))
            assert reasons["no room"] >= connections - most // size
            # Beside the content: a copy while a message is put together, and what 200 connections take.
            # libmilter's threads have a pool of memory each, which they seldom give back.
            beside = 64 * 2**20 if front == "asyncio" else 256 * 2**20
            assert resident(milter, "VmHWM") - before < 2 * most + beside


def resident(daemon: Daemon, figure: str = "VmRSS") -> int:
    """Bytes of memory that a daemon uses, or has used at most."""
    status = Path(f"/proc/{daemon.child.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(figure)))


def in_threads(
    sessions: list[Mta], work: Callable[[Mta], tuple[bytes, bytes]], count: int, then: Callable[[], None]
) -> list[tuple[bytes, bytes]]:
    """The results of all, at once; when there are `count`, something is done."""
    results: list[tuple[bytes, bytes]] = []
    threads = [
        threading.Thread(target=lambda session=session: results.append(work(session))) for session in sessions
    ]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(results) >= count, 120)
    then()
    for thread in threads:
        thread.join(60)
    return results


# Restarts


class Source:
    """Postfix's smtp-source: sends messages as fast as they are taken, and ends at the first refusal."""

    def __init__(self, stack: Stack, messages: int) -> None:
        self._stack = stack
        self._messages = messages
        self._before = self._delivered()
        self._process = subprocess.Popen(
            [
                *(str(program("smtp-source", "postfix")), "-s", "8", "-m", str(messages), "-l", "2000"),
                *("-f", "busy@sender.example", "-t", "source@example.org", f"127.0.0.1:{stack.port}"),
            ],
        )

    def wait_for(self, messages: int) -> None:
        """Until so many were delivered."""
        assert wait_until(lambda: self._delivered() >= self._before + messages, 120)

    def each_has_arrived_once(self) -> bool:
        assert self._process.wait(100) == 0
        self.wait_for(self._messages)
        ids = [delivery.message_id for delivery in self.arrived()]
        return len(set(ids)) == len(ids) == self._messages

    def unscanned(self) -> int:
        return sum(delivery.header("X-Spam-Flag") is None for delivery in self.arrived())

    def arrived(self) -> list[Delivery]:
        return self._stack.maildir.deliveries()[self._before :]

    def _delivered(self) -> int:
        new = self._stack.maildir.path / "new"
        return sum(1 for _ in new.iterdir()) if new.exists() else 0


@contextmanager
def receiving(front: str, *, held: bool = False) -> Iterator[Stack]:
    """A stack whose scanner takes a moment, so that at any time some messages are in hand."""
    with temporary_directory() as directory:
        engine = HostileEngine("spamd", Unix(str(directory / "engine")), Manner.SLOW, seconds=0.03)
        with engine, running(engine, directory, f'front = "{front}"', held=held) as stack:
            yield stack


@pytest.mark.slow
def test_restarts_with_systemds_socket_amid_a_thousand_messages_let_none_pass_unscanned() -> None:
    with receiving("asyncio", held=True) as stack:
        source = Source(stack, 1000)
        for so_far in (100, 300, 500):
            source.wait_for(so_far)
            stack.milter.stop()
            stack.milter.start()
        assert source.each_has_arrived_once()
        assert source.unscanned() == 0
        assert [record["unanswered"] for record in stack.milter.records(event="stopped")] == [0] * 4


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_a_successor_whose_socket_is_renamed_over_the_old_one_lets_no_message_pass_unscanned(
    front: str,
) -> None:
    with receiving(front) as stack:
        successor = beside(stack, "2")
        source = Source(stack, 300)
        source.wait_for(100)
        with successor:
            (stack.sockets / "milter2").rename(stack.sockets / "milter")
            stack.milter.stop()
            assert source.each_has_arrived_once()
        # libmilter's threads leave a session that has not yet sent its message to the end of the process.
        assert source.unscanned() == 0 if front == "asyncio" else source.unscanned() <= 8


def beside(stack: Stack, name: str) -> Daemon:
    """Another milter with the same settings, at other addresses."""
    config = stack.config_file.with_name(f"mxweir{name}.toml")
    text = stack.config_file.read_text()
    assert isinstance(stack.addresses.milter, Unix)
    path = stack.addresses.milter.path
    text = text.replace(f'"unix:{path}"', f'"unix:{path}{name}"')
    config.write_text(text.replace(str(stack.addresses.milter_http), str(free_endpoint())))
    return Daemon("milter", config)


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_a_plain_restart_loses_none_and_doubles_none_and_postfix_tells_what_passed_unscanned(
    front: str,
) -> None:
    with receiving(front) as stack:
        source = Source(stack, 300)
        source.wait_for(100)
        stack.milter.stop()
        stack.milter.start()
        assert source.each_has_arrived_once()
        # postlogd may write of a message after it has arrived.
        assert wait_until(lambda: source.unscanned() <= warnings_of_a_milter(stack), 60)
        message_id = new_message_id()
        assert send(stack.port, "a@sender.example", ["b@example.org"], letter(message_id=message_id)).accepted
        assert stack.maildir.wait_for(message_id)[0].header("X-Spam-Flag") == "NO"


def warnings_of_a_milter(stack: Stack) -> int:
    return sum("ilter" in line for line in stack.mx.complaints())


def test_a_stop_answers_the_messages_in_hand_and_takes_no_new_session() -> None:
    with receiving("asyncio") as stack:
        reader_writer: list[bytes] = []

        async def talk() -> None:
            talks = [await until_the_end(stack.port) for _ in range(5)]
            ends = [asyncio.create_task(end(*each)) for each in talks]
            await asyncio.sleep(0)
            await asyncio.to_thread(stack.milter.stop)
            reader_writer.extend(said for said, _ in await asyncio.gather(*ends))

        asyncio.run(talk())
        assert {said[:3] for said in reader_writer} == {b"250"}
        assert wait_until(lambda: len(stack.maildir.deliveries()) >= 5, 60)
        assert all(delivery.header("X-Spam-Flag") for delivery in stack.maildir.deliveries())
        with pytest.raises(OSError, match="No such file"):
            Mta(stack.addresses.milter)
