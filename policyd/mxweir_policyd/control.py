"""The control socket: how the command line asks the running daemon.

A unix socket in the state directory, for its owner alone. One JSON object a
line in, one a line out: `{"explain": {attribute: value, …}}`.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from mxweir.clock import Clock
from mxweir.domains.match import Match
from mxweir.endpoint import Unix
from mxweir.events import Observer, Trouble
from mxweir.facts import Facts
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import ProtocolError, format_request, parse_request

_LARGEST = 512 * 1024
"""Bytes in a line; the largest request has 64 KiB, of which JSON may make six times as many."""


def control_endpoint(state_dir: Path) -> Unix:
    """Where the daemon of this state directory is asked."""
    return Unix(str(state_dir / "policyd.control"))


def facts_of(pipeline: Pipeline, attributes: Mapping[str, str]) -> Facts:
    """The facts of a request given as attributes; raises ProtocolError when they make none."""
    return pipeline.facts(parse_request(format_request(dict(attributes))[:-1]))


def explain(
    pipeline: Pipeline, attributes: Mapping[str, str], clock: Clock, confirmed: Match | None = None
) -> dict[str, Any]:
    """The answer to a request given as attributes, with its trail, in JSON's types; charges nothing.

    `confirmed` is what PostgreSQL says of its domain. Raises ProtocolError when
    the attributes make no request.
    """
    decision, trail = pipeline.explain(facts_of(pipeline, attributes), clock(), confirmed)
    return {
        "action": decision.reply,
        "verdict": decision.verdict,
        "check": decision.check,
        "rule": decision.rule,
        "trail": [step._asdict() for step in trail],
    }


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
            line = await asyncio.wait_for(reader.readline(), 10)
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), 10)
        except (OSError, ValueError, TimeoutError) as error:
            self._observe(Trouble("control connection failed", str(error)))
        finally:
            writer.close()


class Control:
    """Answers the questions of the command line; `describe` says in which state the relay domains are."""

    def __init__(self, answerer: Answerer, describe: Callable[[], str], observe: Observer) -> None:
        self._answerer = answerer
        self._describe = describe
        self._observe = observe

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a line; never raises."""
        try:
            question = json.loads(line)["explain"]
            attributes = {str(name): str(value) for name, value in question.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {"error": f"not a question: {type(error).__name__}"}
        try:
            confirmed = await self._confirmed(attributes)
            answer = explain(self._answerer.pipeline, attributes, self._answerer.clock, confirmed)
            return answer | {"domains": self._describe()}
        except ProtocolError as error:
            return {"error": str(error)}
        except UnicodeEncodeError:
            return {"error": "not a question: UnicodeEncodeError"}
        except Exception as error:  # noqa: BLE001 - who asks is told, whatever it is
            why = f"{type(error).__name__}: {error}"
            self._observe(Trouble("internal error in explaining", why, "error"))
            return {"error": f"internal error: {why}"}

    async def _confirmed(self, attributes: Mapping[str, str]) -> Match | None:
        pipeline = self._answerer.pipeline
        if not (domain := pipeline.unconfirmed(facts_of(pipeline, attributes))):
            return None
        said: asyncio.Future[Match] = asyncio.get_running_loop().create_future()
        self._answerer.confirm(domain, said.set_result)
        return await said


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
