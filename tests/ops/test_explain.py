import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mxweir import control
from mxweir_ops.cli import main
from mxweir_ops.commands import explain
from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, command
from mxweir_ops.lab.place import temporary_directory
from mxweir_policyd.protocol import format_request

RULES = """
[[access]]
block = "sender_org"
value = "bulk.example"
reason = "never confirmed its addresses"

[[limit]]
name = "sender"
key = "sender"
rate = "2/day"

[[limit]]
name = "trial"
key = "client_network"
rate = "1/day"
mode = "observe"

[[limit]]
name = "replies"
key = ["reply_to", "recipient"]
rate = "1/day"
distinct = "from"
"""


class Place:
    """A configuration, its daemon, and `mxweir explain`."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.state.mkdir()
        (directory / "domains").write_text("example.org\n")
        self.addresses = Addresses.in_directory(directory)
        setup = Setup(
            addresses=self.addresses,
            state_dir=self.state,
            domains_file=directory / "domains",
            rest=RULES,
        )
        self.config = directory / "mxweir.toml"
        self.config.write_text(setup.toml())
        self.daemon = Daemon("policyd", self.config)

    def ask(self, **attributes: str) -> str:
        """Ask the daemon, which counts."""
        with PolicyClient(self.addresses.policy) as client:
            return client.ask(**attributes)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """With a daemon that runs and has counted one question of bert@a.example."""
    with temporary_directory() as directory:
        made = Place(directory)
        with made.daemon:
            assert made.ask(sender="bert@a.example") == "DUNNO"
            yield made


@pytest.fixture(scope="module")
def stopped() -> Iterator[Place]:
    """With a daemon that ran, counted one question of bert@a.example, and stopped."""
    with temporary_directory() as directory:
        made = Place(directory)
        with made.daemon:
            assert made.ask(sender="bert@a.example") == "DUNNO"
        yield made


class Explain:
    """`mxweir explain` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, place: Place, *words: str, stdin: bytes = b"", status: int = 0) -> tuple[str, str]:
        """Run it; what it writes to stdout and stderr."""
        self._monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        assert main(["explain", *words, "--config", str(place.config)]) == status
        return self._capsys.readouterr()

    def json(self, place: Place, *words: str, stdin: bytes = b"") -> Any:
        """What it prints as JSON."""
        out, err = self(place, *words, "--json", stdin=stdin)
        assert err == ""
        return json.loads(out)


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(monkeypatch, capsys)


def figures(found: dict[str, Any]) -> dict[str, str]:
    """How much of each limit is used."""
    return {step["rule"]: step["figure"] for step in found["trail"] if step["check"] == "limits"}


BERT = ("--client", "203.0.113.9", "--sender", "bert@a.example", "--recipient", "anna@example.org")


def test_the_running_daemons_counters_are_shown_and_asking_spends_nothing(place: Place, run: Explain) -> None:
    for _ in range(5):
        found = run.json(place, *BERT)
        assert figures(found) == {"sender": "1/2", "trial": "1/1", "replies": ""}
        assert found["action"] == "DUNNO"


def test_the_counters_that_were_saved_are_shown_where_no_daemon_runs_and_stay_as_they_are(
    stopped: Place, run: Explain
) -> None:
    saved = (stopped.state / "limits.state").read_bytes()
    for _ in range(5):
        found = run.json(stopped, *BERT)
        assert figures(found) == {"sender": "1/2", "trial": "1/1", "replies": ""}
    assert (stopped.state / "limits.state").read_bytes() == saved
    out, _ = run(stopped, *BERT)
    assert "source  no daemon runs; the counters are those it saved last\n" in out


def test_limits_by_content_are_named_as_not_decided_here(place: Place, run: Explain) -> None:
    out, _ = run(place, *BERT)
    row = out.splitlines()[-1].split("  ")
    assert [cell.strip() for cell in row if cell.strip()] == [
        "limits",
        "not decided",
        "replies",
        "only the message shows reply_to and from: the milter asks it",
    ]


def test_whoever_may_not_ask_the_daemon_reads_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(control, "ask", refused)
    config = tmp_path / "mxweir.toml"
    config.write_text(f'state_dir = "{tmp_path}"\n')
    assert main(["explain", "--config", str(config), "--sender", "a@b.example"]) == 2
    told = f"mxweir explain: {tmp_path}: Permission denied; ask as root, or as the daemon's user\n"
    assert capsys.readouterr().err == told


def test_where_nothing_was_saved_that_is_said(tmp_path: Path, run: Explain) -> None:
    made = Place(tmp_path)
    out, _ = run(made, *BERT)
    assert "source  no daemon runs, and no counters were saved\n" in out


def test_the_trail_is_a_table_with_the_action_above_it(place: Place, run: Explain) -> None:
    out, err = run(place, *BERT)
    assert err == ""
    assert out.splitlines()[:3] == ["action  DUNNO", "source  the running daemon", ""]
    rows = [line.split() for line in out.splitlines()[3:]]
    assert rows[0][:2] == ["access", "pass"]
    assert rows[1] == ["relay", "pass", "example.org", "ours"]
    assert rows[2] == ["limits", "pass", "sender", "1/2", "bert@a.example"]
    assert rows[3][:6] == ["limits", "would", "refuse", "trial", "1/1", "203.0.113.0/24"]


@pytest.mark.parametrize(
    ("words", "action", "check", "rule"),
    [
        (
            ["--recipient", "x@foreign.example"],
            "550 5.7.1 foreign.example: relay access denied",
            "relay",
            "unknown domain",
        ),
        (
            ["--sender", "x@sub.bulk.example", "--recipient", "anna@example.org"],
            "554 5.7.1 Access denied: never confirmed its addresses",
            "access",
            "block sender_org",
        ),
    ],
)
def test_a_refusal_is_status_1_and_named_by_check_and_rule(
    place: Place, run: Explain, words: list[str], action: str, check: str, rule: str
) -> None:
    out, _ = run(place, *words, status=1)
    assert out.startswith(f"action  {action}\n")
    found = run.json(place, *words)
    assert (found["action"], found["check"], found["rule"]) == (action, check, rule)
    assert found["verdict"] == "reject"


def test_a_request_on_stdin_is_explained_as_the_daemon_answers_it(place: Place, run: Explain) -> None:
    for attributes in (
        {"recipient": "x@foreign.example"},
        {"recipient": "anna@example.org", "instance": "stdin.1"},
        {"recipient": "x@foreign.example", "policy_context": "limits", "instance": "stdin.2"},
        {"sender": "x@bulk.example"},
        {"sender": "", "recipient": "ANNA@EXAMPLE.ORG.", "instance": "stdin.3"},
    ):
        found = run.json(place, stdin=format_request(USUAL | attributes))
        assert found["action"] == place.ask(**attributes)


@pytest.mark.parametrize(
    "stdin",
    [
        b"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=x@foreign.example",
        b"protocol_state=RCPT\nrecipient=x@foreign.example\n",
        b"protocol_state=RCPT\r\nrecipient=x@foreign.example\r\n\r\n",
        b"protocol_state=RCPT\nrecipient=x@foreign.example\n\nprotocol_state=RCPT\nrecipient=a@example.org\n\n",
        b"protocol_state=RCPT\nsender=\xff\xfe=\x85\x0c@a.example\nrecipient=x@foreign.example\n\n",
    ],
    ids=[
        "without an end",
        "without its first line",
        "with carriage returns",
        "two",
        "bytes that are no text",
    ],
)
def test_a_request_may_be_pasted_in_many_forms(place: Place, run: Explain, stdin: bytes) -> None:
    assert run.json(place, stdin=stdin)["check"] == "relay"


def test_a_value_on_stdin_may_hold_what_others_take_for_a_line_end(place: Place, run: Explain) -> None:
    sender = "a\x0cb\u2028c\x85\x1c@bulk.example"
    assert run.json(place, stdin=format_request(USUAL | {"sender": sender}))["check"] == "access"


@pytest.mark.parametrize(
    ("stdin", "why"),
    [
        (b"", "stdin holds no policy request: lines of name=value, as Postfix sends them"),
        (b"\n\n", "stdin holds no policy request: lines of name=value, as Postfix sends them"),
        (b"hello\n", "stdin holds no policy request: lines of name=value, as Postfix sends them"),
        (b"request=junk\n\n", "not request=smtpd_access_policy"),
        (b"sender=a\0b\n\n", "NUL in request"),
        (b"=x\n\n", "line without name=value"),
        (b"a=b\n" * 20_000, "request too large"),
        (b"".join(b"a%d=b\n" % number for number in range(200)), "too many attributes"),
    ],
)
def test_what_is_no_request_is_misuse_whether_a_daemon_runs_or_not(
    place: Place, stopped: Place, run: Explain, stdin: bytes, why: str
) -> None:
    for where in (place, stopped):
        assert run(where, stdin=stdin, status=2) == ("", f"mxweir explain: {why}\n")


def test_options_leave_the_state_at_rcpt_unless_they_say_another(place: Place, run: Explain) -> None:
    assert figures(run.json(place, *BERT)) != {}
    assert figures(run.json(place, *BERT, "--state", "DATA")) == {"replies": ""}


def test_options_give_each_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    for option, attribute in explain._GIVEN.items():
        given = dict.fromkeys(explain._GIVEN) | {option: "x"}
        attributes = explain._attributes(SimpleNamespace(**given))  # type: ignore[arg-type]
        assert attributes[attribute] == "x"


@pytest.mark.parametrize("sender", ["", "<>"])
def test_the_null_sender_may_be_written_both_ways(place: Place, run: Explain, sender: str) -> None:
    found = run.json(place, "--sender", sender, "--recipient", "anna@example.org")
    (step,) = [step for step in found["trail"] if step["rule"] == "sender"]
    assert step["key"] == "<>"


def test_a_request_that_postfix_repeats_is_explained_as_one_that_was_counted(
    place: Place, run: Explain
) -> None:
    place.ask(sender="carol@a.example", instance="counted.1")
    repeated = format_request(USUAL | {"sender": "carol@a.example", "instance": "counted.1"})
    found = run.json(place, stdin=repeated)
    assert "this very question was counted before" in [step["note"] for step in found["trail"]]


def test_a_damaged_counters_file_does_not_stand_in_the_way(tmp_path: Path, run: Explain) -> None:
    made = Place(tmp_path)
    (made.state / "limits.state").write_text("rubbish")
    out, _ = run(made, *BERT)
    assert "no counters were saved" in out
    assert (made.state / "limits.state").read_text() == "rubbish"


def test_a_table_that_cannot_be_opened_is_one_line_with_status_2(tmp_path: Path, run: Explain) -> None:
    made = Place(tmp_path)
    (made.state / "domains.lmdb").mkdir()
    out, err = run(made, *BERT, status=2)
    assert out == ""
    assert err.startswith(f"mxweir explain: {made.state}/domains.lmdb: cannot be opened: ")


def test_it_reads_stdin_and_the_environment_as_a_command(place: Place) -> None:
    argv = command("explain", place.config, "--json")
    done = subprocess.run(
        argv[: argv.index("--config")],
        input=format_request(USUAL | {"recipient": "x@foreign.example"}),
        check=False,
        capture_output=True,
        timeout=120,
        env={"MXWEIR_CONFIG": str(place.config)},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert {"action", "rule", "trail"} <= found.keys()
    assert found["action"].startswith("550 5.7.1")
