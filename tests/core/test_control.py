import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mxweir import service
from mxweir.control import Control, ControlServer, ask, control_endpoint
from mxweir.events import Trouble
from mxweir.testing import Recorder
from mxweir_ops.lab.place import temporary_directory


class Daemon:
    """A control socket at which questions called "echo" are answered, and those called "fail" are not."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.recorder = Recorder()
        self.listener = service.bind(control_endpoint(state_dir, "milter"), 0o600)
        self.control = Control({"echo": self._echo, "fail": self._fail}, self.recorder)

    async def ask(self, question: object) -> dict[str, Any] | None:
        """Ask as the command line does, from another thread."""
        return await asyncio.to_thread(ask, self.state_dir, "milter", question)  # type: ignore[arg-type]

    async def _echo(self, question: Any) -> dict[str, Any]:
        return {"said": question["say"]}

    async def _fail(self, question: Any) -> dict[str, Any]:
        raise ZeroDivisionError(question)


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[Daemon]:
    with temporary_directory() as directory:
        made = Daemon(directory)
        server = await ControlServer(made.control.answer, made.recorder).serve(made.listener.socket)
        async with server:
            yield made
        made.listener.close()


async def test_a_question_is_answered_by_who_answers_for_its_name(daemon: Daemon) -> None:
    assert await daemon.ask({"echo": {"say": "\udcff"}}) == {"said": "\udcff"}


@pytest.mark.parametrize(
    "question", [{}, {"other": 1}, {"echo": {}}, {"echo": 7}, {"echo": None}, [], 7, "echo"]
)
async def test_what_is_no_question_is_answered_with_what_is_wrong(daemon: Daemon, question: object) -> None:
    answer = await daemon.ask(question)
    assert answer is not None
    assert answer["error"].startswith("not a question: ")
    assert daemon.recorder.events == []


async def test_a_fault_in_a_command_is_an_answer_and_a_trouble(daemon: Daemon) -> None:
    assert await daemon.ask({"fail": "odd"}) == {"error": "internal error: ZeroDivisionError: odd"}
    assert daemon.recorder.events == [
        Trouble("internal error in a command", "ZeroDivisionError: odd", "error")
    ]


async def test_a_question_nested_too_deeply_is_none_and_the_next_one_is_answered(daemon: Daemon) -> None:
    reader, writer = await asyncio.open_unix_connection(control_endpoint(daemon.state_dir, "milter").path)
    writer.write(b"[" * 200_000 + b"\n")
    assert await reader.readline() == b'{"error": "not a question: RecursionError"}\n'
    writer.close()
    assert await daemon.ask({"echo": {"say": 1}}) == {"said": 1}


async def test_a_line_that_is_far_too_long_is_an_error_for_the_command_and_told_by_the_daemon(
    daemon: Daemon,
) -> None:
    with pytest.raises(OSError, match=r"without an answer|Connection reset|Broken pipe"):
        await daemon.ask({"echo": {"say": "x" * 3_000_000}})
    troubles = [event.what for event in daemon.recorder.events if isinstance(event, Trouble)]
    assert troubles == ["control connection failed"]


async def test_nobody_but_the_owner_may_connect(daemon: Daemon) -> None:
    status = os.stat(control_endpoint(daemon.state_dir, "milter").path)
    assert stat.S_IMODE(status.st_mode) == 0o600


async def test_each_daemon_is_asked_at_a_place_of_its_own(daemon: Daemon) -> None:
    assert ask(daemon.state_dir, "policyd", {"echo": {"say": 1}}) is None


def test_where_no_daemon_runs_there_is_no_answer(tmp_path: Path) -> None:
    assert ask(tmp_path, "policyd", {"explain": {}}) is None
    with temporary_directory() as directory:
        service.bind(control_endpoint(directory, "policyd")).socket.close()
        assert ask(directory, "policyd", {"explain": {}}) is None


def test_a_daemon_that_does_not_answer_in_time_is_an_error() -> None:
    with temporary_directory() as directory:
        listener = service.bind(control_endpoint(directory, "policyd"))
        with pytest.raises(TimeoutError):
            ask(directory, "policyd", {"explain": {}}, timeout=0.05)
        listener.close()


def test_a_daemon_that_hangs_up_is_an_error() -> None:
    with temporary_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(control_endpoint(directory, "policyd").path)
        listener.listen()

        def hang_up() -> None:
            listener.accept()[0].close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        with pytest.raises(ConnectionError):
            ask(directory, "policyd", {"explain": {}})
        hanging_up.join()
