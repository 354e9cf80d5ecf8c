"""The control socket: how the command line asks the running daemon.

A unix socket in the state directory, for its owner alone. One JSON object a
line in, one a line out: `{"explain": {attribute: value, …}}`.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mxweir.clock import Clock
from mxweir.endpoint import Unix
from mxweir.events import Observer, Trouble
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import ProtocolError, format_request, parse_request
from mxweir_policyd.session import Answerer

_LARGEST = 512 * 1024
"""Bytes in a line; the largest request has 64 KiB, of which JSON may make six times as many."""


def control_endpoint(state_dir: Path) -> Unix:
    """Where the daemon of this state directory is asked."""
    return Unix(str(state_dir / "policyd.control"))


def explain(pipeline: Pipeline, attributes: Mapping[str, str], clock: Clock) -> dict[str, Any]:
    """The answer to a request given as attributes, with its trail, in JSON's types; charges nothing.

    Raises ProtocolError when the attributes make no request.
    """
    request = parse_request(format_request(dict(attributes))[:-1])
    decision, trail = pipeline.explain(pipeline.facts(request), clock())
    return {
        "action": decision.reply,
        "verdict": decision.verdict,
        "check": decision.check,
        "rule": decision.rule,
        "trail": [step._asdict() for step in trail],
    }


class ControlServer:
    """Answers on the control socket."""

    def __init__(self, answerer: Answerer, observe: Observer) -> None:
        self._answerer = answerer
        self._observe = observe

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Start answering on a listening socket."""
        return await asyncio.start_unix_server(self._converse, sock=listener, limit=_LARGEST)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 10)
            writer.write(json.dumps(self._answer(line)).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), 10)
        except (OSError, ValueError, TimeoutError) as error:
            self._observe(Trouble("control connection failed", str(error)))
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)["explain"]
            attributes = {str(name): str(value) for name, value in question.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {"error": f"not a question: {type(error).__name__}"}
        try:
            return explain(self._answerer.pipeline, attributes, self._answerer.clock)
        except ProtocolError as error:
            return {"error": str(error)}
        except UnicodeEncodeError:
            return {"error": "not a question: UnicodeEncodeError"}
        except Exception as error:  # noqa: BLE001 - who asks is told, whatever it is
            why = f"{type(error).__name__}: {error}"
            self._observe(Trouble("internal error in explaining", why, "error"))
            return {"error": f"internal error: {why}"}


def ask(state_dir: Path, question: Mapping[str, Any], timeout: float = 5.0) -> dict[str, Any] | None:
    """Ask the running daemon; None when there is none. Raises OSError when it gives no answer in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(control_endpoint(state_dir).path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        client.sendall(json.dumps(question).encode() + b"\n")
        with client.makefile("rb") as stream:
            answer = stream.readline(_LARGEST * 4)
    if not answer.endswith(b"\n"):
        raise ConnectionError("the daemon closed the connection without an answer; its log says why")
    return dict(json.loads(answer))
