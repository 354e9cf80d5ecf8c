"""`mxweir limits show | top | reset` without Redis: the counters of the daemons on this host."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mxweir_ops.cli import main
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup
from mxweir_ops.lab.mta import Mta
from mxweir_ops.lab.place import temporary_directory

RULES = """
[[limit]]
name = "sender"
key = "sender"
rate = "3/day"
overrides = { "friend@a.example" = "unlimited" }

[[limit]]
name = "org"
key = "sender_org"
rate = "100/day"
window = true
mode = "observe"

[[limit]]
name = "fan-out"
key = "client_network"
rate = "50/day"
distinct = "recipient"

[[limit]]
name = "pair"
key = ["sender_org", "recipient"]
rate = "10/day"

[[limit]]
name = "replies"
key = "reply_to"
rate = "5/hour"

[[limit]]
name = "reply-orgs"
key = "reply_to_org"
unit = "message"
rate = "4/day"
window = true

[[limit]]
name = "mailbox"
key = "recipient"
rate = "100/day"
"""


class Host:
    """A configuration with its daemons."""

    def __init__(self, directory: Path) -> None:
        (directory / "state").mkdir()
        (directory / "domains").write_text("example.org\n")
        self.addresses = Addresses.in_directory(directory)
        self.config = directory / "mxweir.toml"
        setup = Setup(
            addresses=self.addresses,
            state_dir=directory / "state",
            domains_file=directory / "domains",
            rest=RULES,
        )
        self.config.write_text(setup.toml())
        self.daemon = Daemon("policyd", self.config)
        self.milter = Daemon("milter", self.config)
        self._asked = 0

    def ask(self, **attributes: str) -> str:
        self._asked += 1
        with PolicyClient(self.addresses.policy) as client:
            return client.ask(**attributes, instance=f"i{self._asked}")

    def send(self, reply_to: str) -> None:
        """One message with this Reply-To, to two recipients."""
        headers = ((b"From", b" x@from.example"), (b"Reply-To", f" {reply_to}".encode()))
        with Mta(self.addresses.milter) as mta:
            mta.negotiate()
            mta.greet()
            mta.deliver(headers, recipients=(b"<a@example.org>", b"<b@example.org>"))


@pytest.fixture(name="host", scope="module")
def _host() -> Iterator[Host]:
    """With a daemon that runs; each test has senders and clients of its own."""
    with temporary_directory() as directory:
        host = Host(directory)
        with host.daemon, host.milter:
            yield host


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mxweir limits`: status, and what it writes to stdout and stderr."""

    def run(host: Host, *words: str) -> tuple[int, str, str]:
        status = main(["limits", *words, "--config", str(host.config)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def uses(run: Run, host: Host, *words: str, status: int = 0) -> dict[str, dict[str, Any]]:
    """What is printed as JSON, by limit."""
    found, out, err = run(host, *words, "--json")
    assert (found, err) == (status, "")
    return {each["limit"]: each for each in json.loads(out)["uses"]}


def test_a_key_is_shown_with_every_limit_that_it_takes_part_in_and_asking_spends_nothing(
    host: Host, run: Run
) -> None:
    for recipient in ("a@example.org", "b@example.org"):
        assert (
            host.ask(sender="Bob@mail.show.example", recipient=recipient, client_address="192.0.2.9")
            == "DUNNO"
        )
    for _ in range(3):
        found = uses(run, host, "show", "bob@mail.show.example")
        used = {name: (each["used"], each["most"]) for name, each in found.items()}
        assert used == {"sender": (2, 3), "replies": (0, 5), "mailbox": (0, 100)}
        assert found["sender"]["wait"] == 0
    assert uses(run, host, "show", "show.example")["org"]["used"] == 2
    assert uses(run, host, "show", "192.0.2.77")["fan-out"]["key"] == "192.0.2.0/24"
    assert uses(run, host, "show", "192.0.2.0/24")["fan-out"]["used"] == 2
    assert uses(run, host, "show", "show.example, A@example.org")["pair"]["used"] == 1


def test_a_key_without_room_is_shown_with_when_there_is_room_again(host: Host, run: Run) -> None:
    for _ in range(3):
        assert host.ask(sender="bob@full.example") == "DUNNO"
    assert host.ask(sender="bob@full.example").startswith("550")
    found = uses(run, host, "show", "bob@full.example", "--limit", "sender")["sender"]
    assert (found["used"], found["most"]) == (3, 3)
    assert 86400 / 3 - 600 < found["wait"] <= 86400 / 3
    status, out, _ = run(host, "show", "bob@full.example", "--limit", "sender")
    assert status == 0
    source, _, row = out.splitlines()
    assert source == "source  the running policy daemon"
    limit, used, *room, minutes, unit, rate, mode, key = row.split()
    assert (limit, used, room, unit) == ("sender", "3/3", ["room", "in"], "min")
    assert (rate, mode, key) == ("3/day", "enforce", "bob@full.example")
    assert 470 <= int(minutes) <= 480


def test_an_unlimited_key_is_shown_as_one(host: Host, run: Run) -> None:
    for _ in range(5):
        assert host.ask(sender="friend@a.example") == "DUNNO"
    assert uses(run, host, "show", "friend@a.example")["sender"]["most"] is None
    _, out, _ = run(host, "show", "friend@a.example")
    assert out.splitlines()[2].split()[1:4] == ["0/unlimited", "room", "now"]


def test_a_reset_key_begins_anew_with_every_limit_and_no_other_key_does(host: Host, run: Run) -> None:
    for sender in ("bob@reset.example", "eve@reset.example"):
        for _ in range(3):
            assert host.ask(sender=sender) == "DUNNO"
        assert host.ask(sender=sender).startswith("550")
    assert uses(run, host, "reset", "bob@reset.example")["sender"]["used"] == 3
    assert uses(run, host, "show", "bob@reset.example")["sender"]["used"] == 0
    assert host.ask(sender="bob@reset.example") == "DUNNO"
    assert host.ask(sender="eve@reset.example").startswith("550")
    assert "reset   what was used until now:" in run(host, "reset", "bob@reset.example")[1].splitlines()
    assert uses(run, host, "reset", "reset.example", "--limit", "org")["org"]["used"] > 0
    assert uses(run, host, "show", "reset.example", "--limit", "org")["org"]["used"] == 0


def test_those_who_use_most_come_first(host: Host, run: Run) -> None:
    for sender, times in (("a@top.example", 2), ("b@top.example", 3), ("c@top.example", 1)):
        for _ in range(times):
            assert host.ask(sender=sender, client_address="198.51.100.7") == "DUNNO"
    status, out, _ = run(host, "top", "--limit", "sender", "--count", "1000", "--json")
    assert status == 0
    rows = json.loads(out)["uses"]
    assert [(row["key"], row["used"]) for row in rows if "top.example" in row["key"]] == [
        ("b@top.example", 3),
        ("a@top.example", 2),
        ("c@top.example", 1),
    ]
    assert {row["limit"] for row in rows} == {"sender"}
    used = [row["used"] for row in rows]
    assert used == sorted(used, reverse=True)
    _, out, _ = run(host, "top", "--count", "1")
    assert (
        out.splitlines()[0] == "source  the running policy daemon; the running milter; exact, for this host"
    )
    assert {"sender", "org", "fan-out", "pair"} <= {line.split()[0] for line in out.splitlines()[2:]}


def test_where_no_key_uses_anything_that_is_said(run: Run) -> None:
    with temporary_directory() as directory:
        assert run(Host(directory), "top")[1].splitlines()[2:] == ["  no key uses anything of a limit"]


def test_what_no_limit_counts_by_is_a_finding_and_why_is_told(host: Host, run: Run) -> None:
    status, out, err = run(host, "show", "mail.a.example")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        'passed over: org: "mail.a.example" is no registrable domain; write "a.example"',
        "passed over: pair: its key is sender_org, recipient; write all, with commas between",
        'passed over: reply-orgs: "mail.a.example" is no registrable domain; write "a.example"',
        "mxweir limits: no limit counts by a key such as 'mail.a.example'",
    ]
    assert uses(run, host, "show", "mail.a.example", status=1) == {}


def test_a_limit_that_there_is_not_is_misuse_and_says_which_there_are(host: Host, run: Run) -> None:
    status, out, err = run(host, "show", "a@b.example", "--limit", "sendr")
    assert (status, out) == (2, "")
    assert err == (
        "mxweir limits: there is no limit named 'sendr'; "
        "there are: sender, org, fan-out, pair, replies, reply-orgs, mailbox\n"
    )


@pytest.mark.parametrize("count", ["0", "-1", "1001", "many"])
def test_a_count_that_is_none_is_misuse(host: Host, run: Run, count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(host, "top", "--count", count)
    assert ended.value.code == 2


def test_where_no_daemon_runs_the_counters_that_it_saved_are_shown_and_cannot_be_reset(run: Run) -> None:
    with temporary_directory() as directory:
        host = Host(directory)
        status, out, _ = run(host, "show", "bob@a.example")
        nothing = "no policy daemon answers, and no counters were saved"
        assert (status, out.splitlines()[0]) == (
            0,
            f"source  {nothing}; {nothing.replace('policy daemon', 'milter')}",
        )
        with host.daemon, host.milter:
            assert host.ask(sender="bob@a.example") == "DUNNO"
            host.send("bob@a.example")
        status, out, _ = run(host, "show", "bob@a.example")
        assert out.splitlines()[0] == (
            "source  no policy daemon answers: the counters that it saved last; "
            "no milter answers: the counters that it saved last"
        )
        assert [line.split()[:2] for line in out.splitlines()[2:]] == [
            ["sender", "1/3"],
            ["replies", "2/5"],
            ["mailbox", "0/100"],
        ]
        assert [each["used"] for each in uses(run, host, "top", "--limit", "sender").values()] == [1]
        status, out, err = run(host, "reset", "bob@a.example", "--limit", "sender")
        assert (status, out) == (2, "")
        assert err == "mxweir limits: sender: not reset, for no policy daemon answers\n"


def test_a_key_of_both_daemons_is_shown_and_reset_at_both_in_the_order_of_the_limits(
    host: Host, run: Run
) -> None:
    assert host.ask(sender="bob@example.org", recipient="bob@example.org") == "DUNNO"
    for _ in range(2):
        host.send("Bob@Example.org")
    status, out, _ = run(host, "show", "bob@example.org")
    assert status == 0
    assert out.splitlines()[0] == "source  the running policy daemon; the running milter"
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        ["sender", "1/3"],
        ["replies", "4/5"],
        ["mailbox", "1/100"],
    ]
    assert uses(run, host, "show", "example.org")["reply-orgs"]["used"] == 2
    tops = json.loads(run(host, "top", "--limit", "replies", "--json")[1])["uses"]
    assert {"bob@example.org": 4}.items() <= {each["key"]: each["used"] for each in tops}.items()
    assert uses(run, host, "reset", "bob@example.org", "--limit", "replies")["replies"]["used"] == 4
    found = uses(run, host, "show", "bob@example.org")
    assert {name: each["used"] for name, each in found.items()} == {"sender": 1, "replies": 0, "mailbox": 1}
    assert uses(run, host, "reset", "bob@example.org").keys() == found.keys()
    assert uses(run, host, "show", "bob@example.org")["sender"]["used"] == 0


def test_what_cannot_be_reset_because_one_daemon_is_stopped_is_told_and_the_rest_is_reset(run: Run) -> None:
    with temporary_directory() as directory:
        host = Host(directory)
        with host.daemon:
            assert host.ask(sender="bob@a.example") == "DUNNO"
            status, out, err = run(host, "reset", "bob@a.example")
            assert status == 1
            assert err.splitlines()[-1] == "passed over: replies: not reset, for no milter answers"
            assert out.splitlines()[0] == "source  the running policy daemon; no milter answers"
            assert (
                run(host, "show", "bob@a.example", "--limit", "sender")[1].splitlines()[2].split()[1] == "0/3"
            )
