"""The control socket: how the command line asks the running daemon.

A unix socket in the state directory, for its owner alone. One JSON object a
line in, one a line out: `{"explain": {attribute: value, …}}`, `{"limits": …}`
(`limitscontrol`), `{"access": …}` (`accesslist.commands`).
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mxweir.domains.match import Match
from mxweir.endpoint import Unix
from mxweir.events import Observer, Trouble
from mxweir.facts import Facts
from mxweir.ratelimit.limits import Preview
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.pipeline import Pipeline
from mxweir_policyd.protocol import ProtocolError, format_request, parse_request

T = TypeVar("T")

_LARGEST = 512 * 1024
"""Bytes in a line; the largest request has 64 KiB, of which JSON may make six times as many."""


def control_endpoint(state_dir: Path) -> Unix:
    """Where the daemon of this state directory is asked."""
    return Unix(str(state_dir / "policyd.control"))


def facts_of(pipeline: Pipeline, attributes: Mapping[str, str]) -> Facts:
    """The facts of a request given as attributes; raises ProtocolError when they make none."""
    return pipeline.facts(parse_request(format_request(dict(attributes))[:-1]))


def explain(
    pipeline: Pipeline,
    facts: Facts,
    now: float,
    confirmed: Match | None = None,
    limits: Preview | None = None,
) -> dict[str, Any]:
    """What `Pipeline.explain` says, in JSON's types."""
    decision, trail = pipeline.explain(facts, now, confirmed, limits)
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
    """Answers the questions of the command line; `describe` says in which state the relay domains are.

    `others` answer the questions of those names.
    """

    def __init__(
        self,
        answerer: Answerer,
        describe: Callable[[], str],
        observe: Observer,
        others: Mapping[str, Callable[[Any], Awaitable[dict[str, Any]]]] | None = None,
    ) -> None:
        self._answerer = answerer
        self._describe = describe
        self._observe = observe
        self._others = others or {}

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a line; never raises."""
        try:
            question = json.loads(line)
            if other := next((name for name in self._others if name in question), ""):
                return await self._answer_other(other, question[other])
            attributes = {str(name): str(value) for name, value in question["explain"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {"error": f"not a question: {type(error).__name__}"}
        return await self._explain(attributes)

    async def _answer_other(self, name: str, question: Any) -> dict[str, Any]:
        try:
            return await self._others[name](question)
        except (KeyError, TypeError, ValueError):
            raise
        except Exception as error:  # noqa: BLE001 - as below
            why = f"{type(error).__name__}: {error}"
            self._observe(Trouble("internal error in a command", why, "error"))
            return {"error": f"internal error: {why}"}

    async def _explain(self, attributes: Mapping[str, str]) -> dict[str, Any]:
        try:
            pipeline = self._answerer.pipeline
            facts, now = facts_of(pipeline, attributes), self._answerer.clock()
            confirmed = await self._confirmed(pipeline, facts)
            limits = await _word(partial(pipeline.preview_limits, facts, now))
            return explain(pipeline, facts, now, confirmed, limits) | {"domains": self._describe()}
        except ProtocolError as error:
            return {"error": str(error)}
        except UnicodeEncodeError:
            return {"error": "not a question: UnicodeEncodeError"}
        except Exception as error:  # noqa: BLE001 - who asks is told, whatever it is
            why = f"{type(error).__name__}: {error}"
            self._observe(Trouble("internal error in explaining", why, "error"))
            return {"error": f"internal error: {why}"}

    async def _confirmed(self, pipeline: Pipeline, facts: Facts) -> Match | None:
        domain = pipeline.unconfirmed(facts)
        return await _word(partial(self._answerer.confirm, domain)) if domain else None


async def _word(ask: Callable[[Callable[[T], None]], None]) -> T:
    """What a backend says, which calls back when it knows."""
    said: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    ask(said.set_result)
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
