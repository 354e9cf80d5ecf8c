import argparse
import os
import shutil
import signal

import pytest

from mxweir_ops.commands import demo
from mxweir_ops.demonstration import Scene, Shown
from mxweir_ops.lab import process
from mxweir_ops.lab.client import Reply

ACCEPTED = Scene("accepted", "bert@sender.example", "anna@example.org", 250, "milter")
SCAN = {"event": "scan", "outcome": "ham", "score": 1.3, "symbols": "A,B", "reason": ""}


class Stage:
    """Shows what it is given, without servers."""

    def __init__(self, *shown: Shown):
        self.shown = shown

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def play(self) -> tuple[Shown, ...]:
        return self.shown


def run(monkeypatch: pytest.MonkeyPatch, *shown: Shown, as_json: bool = False) -> int:
    monkeypatch.setattr(demo, "Stage", lambda: Stage(*shown))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return demo.run(argparse.Namespace(json=as_json))


def test_a_message_is_told_with_its_answer_its_reason_and_what_was_delivered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(ACCEPTED, Reply(250, "2.0.0 Ok"), SCAN, {"X-Spam-Flag": "NO"})
    assert run(monkeypatch, shown) == 0
    told = capsys.readouterr().out
    assert "1. accepted" in told
    assert "Postfix    250 2.0.0 Ok" in told
    assert "because    milter: outcome=ham score=1.3 symbols=A, B" in told
    assert "delivered  X-Spam-Flag: NO" in told


def test_an_answer_that_should_be_another_is_named_and_the_status_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(ACCEPTED, Reply(451, "4.3.0 later"), {}, None)
    assert run(monkeypatch, shown, as_json=True) == 1
    captured = capsys.readouterr()
    assert captured.err == "mxweir demo: not as it should be: accepted\n"
    assert '"as_expected": false' in captured.out


def test_a_missing_server_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "_SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert demo.run(argparse.Namespace(json=False)) == 1
    assert (
        capsys.readouterr().err == "mxweir demo: postfix is not installed (Debian's package postfix has it)\n"
    )


def test_a_user_who_is_not_root_is_told_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/usr/sbin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert demo.run(argparse.Namespace(json=False)) == 1
    assert capsys.readouterr().err.startswith("mxweir demo: a private Postfix needs root")
