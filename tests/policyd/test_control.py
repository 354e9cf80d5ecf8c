import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mxweir import service
from mxweir.config import loads
from mxweir.control import Control, ControlServer, ask, control_endpoint
from mxweir.domains.record import FROM_COMMAND, Record
from mxweir.events import Trouble
from mxweir.testing import Recorder, SettableClock
from mxweir_ops.lab.asking import USUAL
from mxweir_ops.lab.place import temporary_directory
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.control import Explaining, facts_of
from mxweir_policyd.protocol import MAX_REQUEST, ProtocolError, format_request, parse_request
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.worker import build_pipeline

CONFIG = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "2/day"\n'


class Daemon:
    """The answering part of a daemon, with its control socket."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.recorder = Recorder()
        self.replica = Replica(state_dir)
        self.replica.add([Record("example.org")], FROM_COMMAND)
        pipeline = build_pipeline(loads(CONFIG), self.replica)
        self.answerer = Answerer(pipeline, SettableClock(), self.recorder)
        self.listener = service.bind(control_endpoint(state_dir, "policyd"), 0o600)

    async def ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Ask as the command line does, from another thread."""
        return await asyncio.to_thread(ask, self.state_dir, "policyd", question)


@pytest_asyncio.fixture
async def daemon() -> AsyncIterator[Daemon]:
    with temporary_directory() as directory:
        made = Daemon(directory)
        explaining = Explaining(made.answerer, lambda: "", made.recorder)
        control = Control({"explain": explaining.answer}, made.recorder)
        server = await ControlServer(control.answer, made.recorder).serve(made.listener.socket)
        async with server:
            yield made
        made.listener.close()
        made.replica.close()


async def test_a_request_is_explained_with_its_trail(daemon: Daemon) -> None:
    found = await daemon.ask({"explain": USUAL})
    assert found is not None
    assert [found[name] for name in ("action", "verdict", "check", "rule")] == ["DUNNO", "pass", "", ""]
    assert [(step["check"], step["outcome"], step["figure"]) for step in found["trail"]] == [
        ("access", "pass", ""),
        ("relay", "pass", ""),
        ("limits", "pass", "0/2"),
    ]


async def test_a_refusal_is_explained_by_its_check_and_rule(daemon: Daemon) -> None:
    found = await daemon.ask({"explain": USUAL | {"recipient": "x@foreign.example"}})
    assert found is not None
    assert [found[name] for name in ("action", "verdict", "check", "rule")] == [
        "550 5.7.1 foreign.example: relay access denied",
        "reject",
        "relay",
        "unknown domain",
    ]


async def test_what_the_daemon_counted_is_in_the_explanation_and_asking_counts_nothing(
    daemon: Daemon,
) -> None:
    daemon.answerer.answer([parse_request(format_request(USUAL)[:-1])])
    for _ in range(5):
        found = await daemon.ask({"explain": USUAL | {"instance": "2.2.2.0"}})
        assert found is not None
        assert found["trail"][-1]["figure"] == "1/2"


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"explain": {"sender": "a\n\nb"}}, "line without name=value"),
        ({"explain": {"request": "junk"}}, "not request=smtpd_access_policy"),
        ({"explain": {"sender": "a\0b"}}, "NUL in request"),
        ({"explain": {"sender": "\ud800"}}, "not a question: UnicodeEncodeError"),
        ({"explain": ["sender"]}, "not a question: TypeError"),
        ({"dump": {}}, "not a question: KeyError"),
    ],
)
async def test_what_is_no_question_is_answered_with_what_is_wrong(
    daemon: Daemon, question: dict[str, Any], error: str
) -> None:
    assert await daemon.ask(question) == {"error": error}


@pytest.mark.parametrize("error", [RecursionError("too deep"), ZeroDivisionError(), ValueError("odd")])
async def test_a_fault_in_explaining_is_an_answer_and_a_trouble(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(daemon.answerer.pipeline, "explain", fail)
    why = f"{type(error).__name__}: {error}"
    assert await daemon.ask({"explain": USUAL}) == {"error": f"internal error: {why}"}
    assert daemon.recorder.events == [Trouble("internal error in explaining", why, "error")]


async def test_the_largest_request_of_invalid_bytes_fits(daemon: Daemon) -> None:
    sender = "\udcff" * (MAX_REQUEST - 1000)
    found = await daemon.ask({"explain": USUAL | {"sender": sender}})
    assert found is not None
    assert found["action"] == "DUNNO"


def test_attributes_that_make_no_request_are_a_protocol_error(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    try:
        pipeline = build_pipeline(loads(""), replica)
        with pytest.raises(ProtocolError):
            facts_of(pipeline, {"": "x"})
    finally:
        replica.close()
