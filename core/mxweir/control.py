"""The control socket: how the command line asks a running daemon.

A unix socket in the state directory, for its owner alone. One JSON object a
line in, one a line out: `{"limits": …}` is answered by who answers for `limits`.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from mxweir.endpoint import Unix
from mxweir.events import Observer, Trouble

_LARGEST = 512 * 1024
"""Bytes in a line; the largest request has 64 KiB, of which JSON may make six times as many."""

Answer = Callable[[Any], Awaitable[dict[str, Any]]]
"""Answers questions of one name; raises KeyError, TypeError, ValueError for what is no question."""


def control_endpoint(state_dir: Path, daemon: str) -> Unix:
    """Where the daemon of this state directory is asked: "policyd" or "milter"."""
    return Unix(str(state_dir / f"{daemon}.control"))


class Control:
    """Has each question answered by who answers for its name."""

    def __init__(self, answers: Mapping[str, Answer], observe: Observer) -> None:
        self._answers = answers
        self._observe = observe

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a line; never raises."""
        try:
            question = json.loads(line)
            name = next((name for name in self._answers if name in question), "")
            answer, asked = self._answers[name], question[name]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return _no_question(error)
        try:
            return await answer(asked)
        except (ValueError, KeyError, TypeError) as error:
            return _no_question(error)
        except Exception as error:  # noqa: BLE001 - who asks is told, whatever it is
            why = f"{type(error).__name__}: {error}"
            self._observe(Trouble("internal error in a command", why, "error"))
            return {"error": f"internal error: {why}"}


def _no_question(error: Exception) -> dict[str, Any]:
    return {"error": f"not a question: {type(error).__name__}"}


class ControlServer:
    """Has the lines that come in at the control socket answered by `answer`."""

    def __init__(self, answer: Callable[[bytes], Awaitable[dict[str, Any]]], observe: Observer) -> None:
        self._answer = answer
        self._observe = observe

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Start answering on a listening socket."""
        return await asyncio.start_unix_server(self._converse, sock=listener, limit=_LARGEST)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(10):
                await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            self._observe(Trouble("control connection failed", str(error)))
        finally:
            writer.close()


def ask(
    state_dir: Path, daemon: str, question: Mapping[str, Any], timeout: float = 5.0
) -> dict[str, Any] | None:
    """Ask the running daemon; None when there is none. Raises OSError when it gives no answer in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(control_endpoint(state_dir, daemon).path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        client.sendall(json.dumps(question).encode() + b"\n")
        with client.makefile("rb") as stream:
            answer = stream.readline(_LARGEST * 4)
    if not answer.endswith(b"\n"):
        raise ConnectionError("the daemon closed the connection without an answer; its log says why")
    return dict(json.loads(answer))
