"""`mxweir block | allow | unblock | list` without Redis: asked of the running daemon, or done in its file."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mxweir_ops import owner
from mxweir_ops.cli import main
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup
from mxweir_ops.lab.place import temporary_directory
from mxweir_policyd.accesslist import kept

RULES = """
[[access]]
block = "sender_org"
value = "bulk.example"
reason = "never confirmed its addresses"

[[access]]
allow = "sender"
value = "friend@over.example"
expires = 2020-01-01T00:00:00Z

[log]
format = "json"
"""


class Host:
    """A configuration with its daemon."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.state.mkdir()
        (directory / "domains").write_text("example.org\n")
        self.addresses = Addresses.in_directory(directory)
        self.config = directory / "mxweir.toml"
        setup = Setup(
            addresses=self.addresses,
            state_dir=self.state,
            domains_file=directory / "domains",
            rest=RULES,
        )
        self.config.write_text(setup.toml())
        self.daemon = Daemon("policyd", self.config)
        self.list = kept.list_path(self.state)

    def ask(self, **attributes: str) -> str:
        with PolicyClient(self.addresses.policy) as client:
            return client.ask(**attributes)


@pytest.fixture(name="stopped")
def _stopped() -> Iterator[Host]:
    """With a daemon that does not run yet."""
    with temporary_directory() as directory:
        host = Host(directory)
        yield host
        host.daemon.stop()


@pytest.fixture(name="host", scope="module")
def _host() -> Iterator[Host]:
    """With a daemon that runs; each test has values of its own."""
    with temporary_directory() as directory:
        host = Host(directory)
        with host.daemon:
            yield host


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: status, and what it writes to stdout and stderr."""

    def run(host: Host, *words: str) -> tuple[int, str, str]:
        status = main([*words, "--config", str(host.config)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def listed(run: Run, host: Host) -> list[dict[str, Any]]:
    status, out, err = run(host, "list", "--json")
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_a_blocked_sender_is_refused_at_once_with_the_reason_until_it_is_unblocked(
    host: Host, run: Run
) -> None:
    with PolicyClient(host.addresses.policy) as client:
        assert client.ask(sender="x@one.example", instance="1") == "DUNNO"
        status, out, err = run(host, "block", "sender_org", "ONE.example", "--reason", "no more, please")
        assert (status, out, err) == (0, "blocked: sender_org one.example, on this host\n", "")
        assert (
            client.ask(sender="x@a.one.example", instance="2") == "554 5.7.1 Access denied: no more, please"
        )
        status, out, err = run(host, "unblock", "sender_org", "one.example")
        assert (status, err) == (0, "")
        said, before = out.splitlines()
        assert said == "withdrawn: sender_org one.example, on this host"
        assert before.startswith("before: block by ")
        assert before.endswith(": no more, please")
        assert client.ask(sender="x@one.example", instance="3") == "DUNNO"


def test_an_allowed_client_goes_before_an_entry_of_the_configuration(host: Host, run: Run) -> None:
    asked = {"sender": "x@bulk.example", "client_address": "198.51.100.7"}
    assert host.ask(**asked, instance="1").startswith("554")
    assert run(host, "allow", "client_network", "198.51.100.0/24")[0] == 0
    assert host.ask(**asked, instance="2") == "DUNNO"
    assert run(host, "block", "sender", "x@bulk.example")[0] == 0
    assert host.ask(**asked, instance="3").startswith("554")
    for words in (("client_network", "198.51.100.0/24"), ("sender", "x@bulk.example")):
        assert run(host, "unblock", *words)[0] == 0


def test_an_entry_is_known_with_who_made_it_and_when_and_in_the_order_in_which_it_counts(
    host: Host, run: Run
) -> None:
    run(host, "block", "helo", "ylmf-pc", "--reason", "a known robot", "--expires", "2h")
    run(host, "allow", "recipient", "abuse@example.org")
    mine = [
        row for row in listed(run, host) if row["value"] in ("ylmf-pc", "abuse@example.org", "bulk.example")
    ]
    assert [(row["action"], row["key"], row["value"], row["from"]) for row in mine] == [
        ("allow", "recipient", "abuse@example.org", "command"),
        ("block", "helo", "ylmf-pc", "command"),
        ("block", "sender_org", "bulk.example", "configuration"),
    ]
    assert mine[1]["reason"] == "a known robot"
    assert mine[1]["expires"] is not None
    assert mine[0]["expires"] is None
    assert all(row["by"].endswith(f"@{socket.gethostname()}") for row in mine[:2])
    assert not any(row["value"] == "friend@over.example" for row in listed(run, host))
    status, out, _ = run(host, "list")
    assert status == 0
    assert out.splitlines()[-1].split() == [
        *("block", "sender_org", "bulk.example", "-", "configuration", "-", "-"),
        *["never", "confirmed", "its", "addresses"],
    ]


def test_what_a_command_did_is_json_too(host: Host, run: Run) -> None:
    run(host, "block", "sender", "json@j.example", "--reason", "first")
    status, out, _ = run(host, "allow", "sender", "json@j.example", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["action"], found["key"], found["value"]) == ("allow", "sender", "json@j.example")
    assert (found["where"], found["before"]["action"], found["before"]["reason"]) == (
        "on this host",
        "block",
        "first",
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("block", "sender_org", "mail.a.example"), 'no registrable domain; write "a.example"'),
        (("block", "sender", "a@b.example", "--reason", "550 no\r\n250 yes"), "text of one line"),
        (("block", "sender", "a@b.example", "--reason", "x" * 201), "up to 200 characters"),
        (("block", "sender", "a@b.example", "--reason", "für"), "ASCII"),
        (("allow", "client_network", "192.0.2.1/24"), "host bits set"),
        (("allow", "client_address", "a.example"), "not an address"),
        (("unblock", "sender", ""), "empty"),
        (("block", "sender", "a@b.example", "--expires", "2020-01-31"), "2020-01-31T00:00:00Z is past"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, tuple) else "",
)
def test_what_is_wrong_is_said_and_changes_nothing(
    host: Host, run: Run, words: tuple[str, ...], error: str
) -> None:
    before = host.list.read_bytes() if host.list.exists() else b""
    status, out, err = run(host, *words)
    assert (status, out) == (2, "")
    assert error in err
    assert err.endswith("; nothing was changed\n")
    assert len(err.splitlines()) == 1
    assert (host.list.read_bytes() if host.list.exists() else b"") == before


@pytest.mark.parametrize("words", [["block", "subject", "x"], ["block", "sender", "x", "--expires", "soon"]])
def test_misuse_is_told_by_the_usage(host: Host, run: Run, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(host, *words)
    assert ended.value.code == 2


def test_unblocking_what_no_command_blocked_is_a_finding_and_says_where_it_stands(
    host: Host, run: Run
) -> None:
    status, out, err = run(host, "unblock", "sender", "nobody@n.example")
    assert (status, out, err) == (
        1,
        "",
        "mxweir unblock: sender nobody@n.example: no command said anything of it\n",
    )
    status, _, err = run(host, "unblock", "sender_org", "Bulk.example")
    assert status == 1
    assert "it stands in the configuration: remove it there, and reload" in err


def test_entries_made_while_no_daemon_runs_are_in_force_when_it_starts(stopped: Host, run: Run) -> None:
    status, out, _ = run(stopped, "block", "sender_org", "a.example")
    assert (status, out) == (0, "blocked: sender_org a.example, on this host, where no daemon runs now\n")
    run(stopped, "block", "sender_org", "b.example")
    assert run(stopped, "unblock", "sender_org", "b.example")[0] == 0
    assert run(stopped, "unblock", "sender_org", "c.example")[0] == 1
    stopped.daemon.start()
    assert stopped.ask(sender="x@a.example").startswith("554 5.7.1 Access denied: blocked by the operator")
    assert stopped.ask(sender="x@b.example") == "DUNNO"


def test_an_explanation_shows_the_command_behind_a_refusal_also_where_no_daemon_runs(
    stopped: Host, run: Run
) -> None:
    run(stopped, "block", "sender_org", "a.example", "--reason", "no more")

    def explained() -> list[str]:
        _, out, _ = run(
            stopped, "explain", "--sender", "x@a.example", "--recipient", "b@example.org", "--json"
        )
        step = json.loads(out)["trail"][0]
        return [step["outcome"], step["rule"], step["key"], step["note"]]

    said = ["block", "block sender_org", "a.example", "no more"]
    assert explained() == said
    stopped.daemon.start()
    assert explained() == said


def test_what_the_daemon_was_told_survives_its_being_killed(stopped: Host, run: Run) -> None:
    stopped.daemon.start()
    run(stopped, "block", "sender_org", "a.example", "--reason", "no more")
    stopped.daemon.kill()
    stopped.daemon.start()
    assert stopped.ask(sender="x@a.example") == "554 5.7.1 Access denied: no more"
    assert [row["value"] for row in listed(run, stopped)] == ["a.example", "bulk.example"]


@pytest.mark.parametrize("reloaded", [False, True])
def test_the_first_entry_of_all_is_in_force_and_the_last_leaves_none(
    stopped: Host, run: Run, reloaded: bool
) -> None:
    """Without any, nobody looks: the express lane is another one."""
    whole = stopped.config.read_text()
    bare = whole[: whole.index("[[access]]")] + whole[whole.index("[log]") :]
    stopped.config.write_text(bare)
    stopped.daemon.start()
    with PolicyClient(stopped.addresses.policy) as client:
        assert client.ask(sender="x@a.example", instance="1") == "DUNNO"
        run(stopped, "block", "sender_org", "a.example")
        assert client.ask(sender="x@a.example", instance="2").startswith("554")
        run(stopped, "block", "sender_org", "b.example")
        run(stopped, "unblock", "sender_org", "b.example")
        if reloaded:
            stopped.daemon.reload()
            assert stopped.daemon.wait_for(event="configuration reloaded")
        assert client.ask(sender="x@a.example", instance="3").startswith("554")
        run(stopped, "unblock", "sender_org", "a.example")
        assert client.ask(sender="x@a.example", instance="4") == "DUNNO"


def test_an_entry_that_has_expired_is_dropped_and_that_is_told(stopped: Host, run: Run) -> None:
    stopped.daemon.start()
    run(stopped, "block", "sender_org", "a.example", "--expires", "5s")
    assert stopped.daemon.wait_for(90.0, event="access entries expired")["count"] == 1
    assert stopped.ask(sender="x@a.example") == "DUNNO"


def test_a_reload_keeps_what_operators_said(stopped: Host, run: Run) -> None:
    stopped.daemon.start()
    run(stopped, "block", "sender_org", "a.example")
    stopped.config.write_text(stopped.config.read_text().replace('"bulk.example"', '"c.example"'))
    stopped.daemon.reload()
    assert stopped.daemon.wait_for(event="configuration reloaded")
    assert stopped.ask(sender="x@a.example").startswith("554")
    assert stopped.ask(sender="x@c.example", instance="2").startswith("554")
    assert run(stopped, "unblock", "sender_org", "a.example")[0] == 0
    assert stopped.ask(sender="x@a.example", instance="3") == "DUNNO"


def test_a_damaged_list_is_put_aside_and_told_and_stops_no_daemon(stopped: Host, run: Run) -> None:
    run(stopped, "block", "sender_org", "a.example")
    stopped.list.write_bytes(stopped.list.read_bytes()[:-5])
    status, _, err = run(stopped, "list")
    assert status == 2
    assert "cut off or damaged" in err
    stopped.daemon.start()
    assert stopped.daemon.wait_for(event="access list not loaded", level="error")["detail"].endswith(
        "kept as access.broken"
    )
    assert stopped.ask(sender="x@a.example") == "DUNNO"
    assert run(stopped, "block", "sender_org", "a.example")[0] == 0
    assert stopped.ask(sender="x@a.example", instance="2").startswith("554")


def test_whoever_may_not_ask_the_daemon_reads_who_may(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mxweir.control.ask", refused)
    monkeypatch.setattr(owner, "become_owner", lambda _: None)
    status, _, err = run(host, "block", "sender", "x@p.example")
    assert status == 2
    assert err == f"mxweir block: {host.state}: Permission denied; ask as root, or as the daemon's user\n"
