"""The tools that mail people trust, swaks and smtp-source, against the same servers as our own client."""

import subprocess
from pathlib import Path

import pytest

from mxweir_ops.lab import letters
from mxweir_ops.lab.client import STRANGER
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.process import program
from mxweir_ops.lab.stack import Stack


def swaks(stack: Stack, directory: Path, sender: str, recipient: str, message: bytes) -> tuple[int, str]:
    """Send one message; the exit status and the dialogue."""
    data = directory / "message"
    data.write_bytes(message)
    command = [
        str(program("swaks", "swaks")),
        *("--server", "127.0.0.1", "--port", str(stack.port), "--xclient-addr", STRANGER),
        *("--helo", "mail.sender.example", "--from", sender, "--to", recipient, "--data", f"@{data}"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_swaks_gets_honest_mail_through(stack: Stack, sender: str, tmp_path: Path) -> None:
    message_id = new_message_id()
    status, dialogue = swaks(stack, tmp_path, sender, "anna@example.org", letter(message_id=message_id))
    assert status == 0, dialogue
    assert stack.maildir.wait_for(message_id)[0].header("X-Spam-Flag") == "NO"


def test_swaks_is_refused_gtube(stack: Stack, sender: str, tmp_path: Path) -> None:
    _, dialogue = swaks(stack, tmp_path, sender, "anna@example.org", letter(letters.GTUBE))
    assert "550 5.7.1 Message refused as spam" in dialogue


def test_swaks_is_refused_a_foreign_domain(stack: Stack, sender: str, tmp_path: Path) -> None:
    _, dialogue = swaks(stack, tmp_path, sender, "dave@elsewhere.example", letter())
    assert "elsewhere.example: relay access denied" in dialogue


@pytest.mark.parametrize(("sessions", "recipients"), [(1, 5), (5, 1)])
def test_smtp_source_gets_exactly_the_burst_through(
    stack: Stack, sender: str, sessions: int, recipients: int
) -> None:
    # Five recipients are the burst of one sender; smtp-source stops with an error at the first refusal.
    def run(messages: int) -> int:
        source = str(program("smtp-source", "postfix"))
        command = [source, "-s", str(sessions), "-r", str(recipients), "-m", str(messages), "-f", sender]
        command += ["-t", f"{sender.partition('@')[0]}@example.org", f"127.0.0.1:{stack.port}"]
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode

    assert run(5 // recipients) == 0
    assert run(1) != 0
