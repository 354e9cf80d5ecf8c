"""What an operator says and asks on one host, and all hosts of one Redis go by: entries, counters.

The daemons and the commands log in as the user that conf/redis ships.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mxweir.config import load
from mxweir.facts import Folder
from mxweir.ratelimit.bulletin import Bulletin
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shapes import Shapes
from mxweir.ratelimit.talkers import Talkers
from mxweir.redis.servers import connect
from mxweir.testing import Recorder, question
from mxweir_ops.cli import main
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, get
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import LabError, wait_until
from mxweir_ops.lab.redis import Redis
from mxweir_ops.lab.redis_topologies import Cluster
from mxweir_policyd.accesslist import kept, remote

SOON = 60.0
"""Seconds in which what is told has come everywhere, on a busy machine."""

RULES = """
[[limit]]
name = "sender"
key = "sender"
rate = "3/day"

[[limit]]
name = "fan-out"
key = "sender_org"
rate = "50/day"
distinct = "recipient"

[log]
format = "json"
"""

BULK = """
[[access]]
block = "sender_org"
value = "bulk.example"
"""


class Host:
    """A policy daemon, and the command line on its host."""

    def __init__(self, directory: Path, url: str, rules: str = RULES) -> None:
        directory.mkdir()
        self.state = directory / "state"
        self.state.mkdir()
        (directory / "domains").write_text("example.org\n")
        self.addresses = Addresses.in_directory(directory)
        self.config = directory / "mxweir.toml"
        setup = Setup(
            addresses=self.addresses,
            state_dir=self.state,
            domains_file=directory / "domains",
            # However busy the machine is: what is counted here is counted in Redis.
            policyd='deadline = "30s"\n',
            rest=f'{rules}\n[redis]\nurl = "{url}"\ntimeout = "10s"\n',
        )
        self.config.write_text(setup.toml())
        self.daemon = Daemon("policyd", self.config)
        self._asked = 0

    def ask(self, sender: str) -> str:
        """The answer to one more question."""
        self._asked += 1
        with PolicyClient(self.addresses.policy) as client:
            return client.ask(sender=sender, instance=f"{id(self):x}.{self._asked}")

    def refuses(self, sender: str) -> bool:
        return self.ask(sender).startswith("554")

    def keeps(self, value: str) -> bool:
        """Whether its file has an entry for a value."""
        path = kept.list_path(self.state)
        return path.exists() and value in [
            record.value for record in kept.read(path).records if record.action
        ]

    def figure(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", get(self.addresses.policyd_http, "/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else -1.0


def soon(host: Host, true: Callable[[Host], bool]) -> bool:
    """Whether it becomes true of a host."""
    return wait_until(lambda: true(host), SOON)


class Hosts:
    """Two of them, and their Redis."""

    def __init__(self, directory: Path, rules: str = RULES) -> None:
        self.redis = Redis(directory)
        self.redis.start()
        self.one, self.other = (
            Host(directory / name, self.redis.guarded_url, rules) for name in ("one", "other")
        )
        self.both = (self.one, self.other)

    def wait(self) -> None:
        """Until both have heard of Redis."""
        for host in self.both:
            assert soon(host, lambda host: host.figure("mxweir_access_age_seconds") >= 0)


@pytest.fixture(name="new_hosts")
def _new_hosts() -> Iterator[Callable[[], Hosts]]:
    """Starts two of the test's own."""
    with ExitStack() as everything:

        def start() -> Hosts:
            hosts = Hosts(everything.enter_context(temporary_directory()))
            everything.callback(hosts.redis.stop)
            for host in hosts.both:
                everything.enter_context(host.daemon)
            hosts.wait()
            return hosts

        yield start


@pytest.fixture(name="hosts", scope="module")
def _hosts() -> Iterator[Hosts]:
    """Those that most tests share, each with senders of its own; none stops one, or Redis."""
    with temporary_directory() as directory:
        made = Hosts(directory, RULES + BULK)
        try:
            with made.one.daemon, made.other.daemon:
                made.wait()
                yield made
        finally:
            made.redis.stop()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a host: status, and what it writes to stdout and stderr."""

    def run(host: Host, *words: str) -> tuple[int, str, str]:
        status = main([*words, "--config", str(host.config)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def said(run: Run, host: Host, *words: str) -> Any:
    """What a command prints as JSON."""
    status, out, err = run(host, *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_a_block_made_on_one_host_is_in_force_on_the_other_and_so_is_its_withdrawal(
    hosts: Hosts, run: Run
) -> None:
    sender = "x@mail.blocked.example"
    assert not any(host.refuses(sender) for host in hosts.both)
    status, out, err = run(hosts.one, "block", "sender_org", "blocked.example", "--reason", "no more")
    assert (status, out, err) == (0, "blocked: sender_org blocked.example, on every host\n", "")
    for host in hosts.both:
        assert soon(host, lambda host: host.refuses(sender))
        assert 0.0 < host.figure("mxweir_access_lag_seconds") < SOON
        assert 0.0 <= host.figure("mxweir_access_age_seconds") < SOON
        assert host.figure("mxweir_access_entries") >= 1
    assert hosts.other.ask(sender) == "554 5.7.1 Access denied: no more"
    assert run(hosts.other, "unblock", "sender_org", "blocked.example")[0] == 0
    for host in hosts.both:
        assert soon(host, lambda host: not host.refuses(sender))
    assert hosts.redis.cli("ACL", "LOG") == []


def test_an_allowed_sender_passes_on_both_in_spite_of_the_configuration(hosts: Hosts, run: Run) -> None:
    assert all(host.refuses("x@bulk.example") for host in hosts.both)
    assert run(hosts.other, "allow", "sender", "x@bulk.example", "--expires", "1d")[0] == 0
    for host in hosts.both:
        assert soon(host, lambda host: not host.refuses("x@bulk.example"))
    for host in hosts.both:
        _, out, _ = run(host, "list", "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["from"] for row in rows if "bulk" in row["value"]] == ["command", "configuration"]
    assert run(hosts.one, "unblock", "sender", "y@bulk.example")[0] == 1


def test_an_entry_survives_a_restart_of_a_host_while_redis_is_down_and_ends_when_it_ends(
    new_hosts: Callable[[], Hosts], run: Run
) -> None:
    hosts = new_hosts()
    assert not hosts.one.refuses("x@kept.example")  # by the lane of those that look for no entry
    assert run(hosts.one, "block", "sender_org", "kept.example")[0] == 0
    assert run(hosts.one, "block", "sender_org", "short.example", "--expires", "6s")[0] == 0
    for host in hosts.both:
        assert soon(host, lambda host: host.keeps("kept.example"))
    hosts.redis.kill()
    for host in hosts.both:
        host.daemon.kill()
        host.daemon.start()
        assert host.refuses("x@kept.example")
        assert soon(host, lambda host: not host.refuses("x@short.example"))
        assert host.refuses("x@kept.example")
    status, out, err = run(hosts.other, "list")
    assert status == 0
    assert "kept.example" in out
    assert err.startswith("mxweir list: Redis (single unix:")
    assert err.endswith("; what follows is what this host knows\n")
    status, out, err = run(hosts.one, "block", "sender_org", "c.example")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("mxweir block: Redis (single unix:")
    hosts.redis.start()
    assert run(hosts.one, "block", "sender_org", "c.example")[0] == 0
    for host in hosts.both:
        assert soon(host, lambda host: host.refuses("x@c.example"))
        assert host.refuses("x@kept.example")


def test_a_list_in_redis_that_cannot_be_read_is_said_and_that_of_this_host_is_shown(
    hosts: Hosts, run: Run
) -> None:
    assert run(hosts.one, "block", "sender_org", "readable.example")[0] == 0
    assert soon(hosts.one, lambda host: host.keeps("readable.example"))
    records = remote.Names("mxweir").records
    version = hosts.redis.cli("HGET", records, "version")
    hosts.redis.cli("HSET", records, "version", "no number")
    try:
        status, out, err = run(hosts.one, "list")
    finally:
        hosts.redis.cli("HSET", records, "version", version)
    assert status == 0
    assert "readable.example" in out
    assert err.startswith("mxweir list: the list in Redis cannot be read: ")
    assert len(err.splitlines()) == 1


def test_a_key_is_shown_as_all_hosts_have_counted_it(hosts: Hosts, run: Run) -> None:
    for host in hosts.both:
        assert host.ask("bob@shown.example") == "DUNNO"
    for host in hosts.both:
        shown = said(run, host, "limits", "show", "bob@shown.example")
        assert [(used["limit"], used["used"], used["most"], used["wait"]) for used in shown["uses"]] == [
            ("sender", 2, 3, 0)
        ]
    assert said(run, hosts.one, "limits", "show", "shown.example")["uses"][0]["used"] == 1
    assert hosts.one.ask("bob@shown.example") == "DUNNO"
    [used] = said(run, hosts.one, "limits", "show", "bob@shown.example", "--limit", "sender")["uses"]
    assert used["used"] == 3
    assert 0 < used["wait"] <= 86400 / 3


def test_a_reset_key_has_room_again_on_all_hosts_also_where_its_refusal_was_remembered(
    hosts: Hosts, run: Run
) -> None:
    sender = "bob@reset.example"
    for _ in range(3):
        assert hosts.one.ask(sender) == "DUNNO"
    for host in hosts.both:
        for _ in range(2):
            assert host.ask(sender).startswith("550")
    [used] = said(run, hosts.other, "limits", "reset", sender)["uses"]
    assert used["used"] == 3
    for host in hosts.both:
        assert soon(host, lambda it: it.ask(sender) == "DUNNO")


def _has(node: Redis, *words: str) -> bool:
    """Whether a node of a Cluster has something, which another may have."""
    try:
        return bool(node.cli(*words))
    except LabError:
        return False


async def _publish(redis: Sequence[Redis], config_file: Path, senders: Sequence[str]) -> None:
    """What a process reports that was asked about these."""
    config = load(config_file)
    limits = Limits(config.limit, Folder())
    shapes, talkers = Shapes(limits, "mxweir"), Talkers(time.time())
    asked = [shapes.question(question(sender=sender, instance=str(n))) for n, sender in enumerate(senders)]
    questions = [one for one in asked if one is not None]
    talkers.row(questions[0].shape, [key for one in questions for key in one.keys])
    assert config.redis is not None
    servers = connect(config.redis, Recorder())
    await servers.start()
    bulletin = Bulletin(servers, "mxweir", talkers, lambda *_: None)
    bulletin.publish()
    waited = (("EXISTS", f"mxweir:top:{bulletin.process}"), ("ZSCORE", "mxweir:top", bulletin.process))
    while not all(any(_has(node, *words) for node in redis) for words in waited):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    servers.close()


def test_those_who_ask_most_are_told_from_what_all_processes_have_seen(hosts: Hosts, run: Run) -> None:
    assert hosts.one.ask("busy@top.example") == "DUNNO"
    asyncio.run(
        _publish([hosts.redis], hosts.one.config, ["busy@top.example"] * 40 + ["calm@top.example"] * 2)
    )
    asyncio.run(
        _publish([hosts.redis], hosts.one.config, ["busy@top.example"] * 30 + ["other@top.example"] * 50)
    )
    found = said(run, hosts.one, "limits", "top", "--limit", "sender", "--count", "2")
    assert found["processes"] >= 4
    [top] = found["limits"]
    assert [
        (key["key"], key["least"] >= least) for key, least in zip(top["keys"], (70, 50), strict=True)
    ] == [
        ("busy@top.example", True),
        ("other@top.example", True),
    ]
    assert top["keys"][0]["used"] == 1
    assert top["questions"] >= 122
    _, out, _ = run(hosts.other, "limits", "top", "--count", "3")
    assert re.search(
        r"^sender: \d+ questions; a key that is not here came at most \d+ times$", out, re.MULTILINE
    )
    assert re.search(r"^  7\d +1/3 +room now +busy@top.example$", out, re.MULTILINE)
    assert all(hosts.redis.cli("PTTL", key) > 0 for key in hosts.redis.cli("KEYS", "mxweir:top*"))


def test_in_a_cluster_the_commands_work_and_hosts_hear_of_them(run: Run) -> None:
    with temporary_directory() as directory, Cluster(directory) as cluster:
        host = Host(directory / "one", cluster.guarded_url)
        assert run(host, "block", "sender_org", "before.example")[0] == 0
        with host.daemon:
            assert soon(host, lambda it: it.refuses("x@before.example"))
            assert run(host, "block", "sender_org", "after.example")[0] == 0
            assert soon(host, lambda it: it.refuses("x@after.example"))
            assert host.ask("bob@a.example") == "DUNNO"
            [used] = said(run, host, "limits", "show", "bob@a.example", "--limit", "sender")["uses"]
            assert used["used"] == 1
            [used] = said(run, host, "limits", "reset", "bob@a.example", "--limit", "sender")["uses"]
            [used] = said(run, host, "limits", "show", "bob@a.example", "--limit", "sender")["uses"]
            assert used["used"] == 0
            asyncio.run(_publish(cluster.masters, host.config, ["busy@top.example"] * 40))
            [top] = said(run, host, "limits", "top", "--limit", "sender", "--count", "1")["limits"]
            assert [(key["key"], key["least"]) for key in top["keys"]] == [("busy@top.example", 40)]
