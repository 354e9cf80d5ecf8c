import asyncio
import os
import socket

import pytest

from mxweir.endpoint import Unix
from mxweir.events import Trouble
from mxweir.service import ServiceError
from mxweir.serving import Listening, _Acceptor
from mxweir.testing import Recorder


class Echo(asyncio.Protocol):
    """Says who it is and hangs up."""

    def connection_made(self, transport):
        transport.write(b"here")
        transport.close()


async def answered(path):
    reader, writer = await asyncio.open_unix_connection(str(path))
    async with asyncio.timeout(10):
        said = await reader.read()
    writer.close()
    return said


def handed(monkeypatch, *sockets):
    """The environment of a daemon that is handed these sockets, as (name, socket)."""
    monkeypatch.setattr("mxweir.service._FIRST_FD", os.dup(sockets[0][1].fileno()))
    names = ":".join(name for name, _ in sockets)
    return {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}


@pytest.fixture
def given(tmp_path):
    """A listening socket of a service manager."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "given"))
        listener.listen()
        yield listener


async def test_an_address_is_served_and_its_file_removed_at_the_end(tmp_path):
    listening = Listening(["policy"], 0o600, "", {})
    await listening.serve("policy", [Unix(str(tmp_path / "own"))], Echo)
    assert await answered(tmp_path / "own") == b"here"
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600
    listening.close()
    assert not (tmp_path / "own").exists()


async def test_a_socket_that_is_handed_over_is_served_and_its_file_left_to_its_owner(
    tmp_path, given, monkeypatch
):
    listening = Listening(["policy"], 0o600, "", handed(monkeypatch, ("policy", given)))
    await listening.serve("policy", [Unix(str(tmp_path / "given"))], Echo)
    assert await answered(tmp_path / "given") == b"here"
    listening.close()
    assert (tmp_path / "given").exists()


async def test_an_address_that_is_not_among_those_handed_over_is_served_as_well(tmp_path, given, monkeypatch):
    listening = Listening(["policy"], 0o600, "", handed(monkeypatch, ("policy", given)))
    await listening.serve("policy", [Unix(str(tmp_path / "own"))], Echo)
    assert [await answered(tmp_path / name) for name in ("own", "given")] == [b"here", b"here"]
    listening.close()


def test_a_socket_by_another_name_is_refused_with_the_names_that_would_do(given, monkeypatch):
    with pytest.raises(ServiceError, match="handed over as web; name them FileDescriptorName=policy or maps"):
        Listening(["policy", "maps"], 0o600, "", handed(monkeypatch, ("web", given)))


async def test_an_address_that_is_taken_is_told_in_one_line(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "own"))
        other.listen()
        listening = Listening(["policy"], 0o600, "", {})
        with pytest.raises(ServiceError, match="another process is serving it"):
            await listening.serve("policy", [Unix(str(tmp_path / "own"))], Echo)


async def test_a_connection_is_handed_on_as_it_was_accepted(tmp_path):
    taken, recorder = asyncio.Queue[socket.socket](), Recorder()
    listening = Listening(["policy"], 0o600, "", {})
    listening.hand_on("policy", [Unix(str(tmp_path / "own"))], taken.put_nowait, recorder)
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "own"))
    async with asyncio.timeout(10):
        connection = await taken.get()
    writer.write(b"a question")
    assert await asyncio.to_thread(connection.recv, 100) == b"a question"
    listening.close()
    with pytest.raises(FileNotFoundError):
        await asyncio.open_unix_connection(str(tmp_path / "own"))
    connection.close()
    writer.close()
    assert recorder.events == []


async def test_when_nothing_can_be_accepted_that_is_told_and_tried_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr("mxweir.serving._AGAIN_AFTER", 0.01)
    taken, recorder, failures = asyncio.Queue[socket.socket](), Recorder(), [1, 2]

    class Full(socket.socket):
        def accept(self):
            if failures:
                failures.pop()
                raise OSError(24, "Too many open files")
            return super().accept()

    with Full(socket.AF_UNIX) as given:
        given.bind(str(tmp_path / "given"))
        given.listen()
        given.setblocking(False)
        acceptor = _Acceptor(given, taken.put_nowait, recorder)
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "given"))
        async with asyncio.timeout(10):
            (await taken.get()).close()
        acceptor.close()
        writer.close()
    assert [event.what for event in recorder.events if isinstance(event, Trouble)] == [
        "connections not accepted"
    ] * 2
