"""A daemon follows PostgreSQL: what is changed there is in force here."""

import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from mxweir.domains.reader import POSTGRES
from mxweir_ops.lab import trouble
from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.host import PATIENCE, Host, add, prepare, remove
from mxweir_ops.lab.place import connect, temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import format_request
from mxweir_policyd.relaydomains.mirror import Mirror


@pytest.fixture
def dsn(database: str) -> str:
    """A database with three domains of ours."""
    prepare(database, "one.example", "two.example", "three.example")
    return database


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


@pytest.fixture
def host(directory: Path, dsn: str) -> Iterator[Host]:
    with Host(directory, dsn, 'poll = "1h"', 'max_shrink = "50%"') as host:
        assert host.follows()
        yield host


def request(domain: str) -> bytes:
    """What Postfix asks about a recipient there."""
    return format_request(USUAL | {"recipient": f"x@{domain}", "policy_context": "relay"})


def lookup(host: Host, question: str) -> str:
    """What the map server says."""
    with connect(host.addresses.maps, 60.0) as client, client.makefile("rb") as stream:
        client.sendall(b"%d:%s," % (len(question), question.encode()))
        length = b""
        while (byte := stream.read(1)) != b":":
            length += byte
        return stream.read(int(length)).decode()


def test_a_known_domain_passes_and_one_that_postgresql_has_not_is_refused(host: Host) -> None:
    assert host.ask("one.example") == "DUNNO"
    assert host.ask("foreign.example") == "550"
    assert host.metric('mxweir_relay_confirmations_total{outcome="unknown"}') == 1
    assert host.ask("foreign.example") == "550"
    assert host.metric('mxweir_relay_confirmations_total{outcome="remembered"}') == 1


def test_a_domain_that_is_added_is_ours_and_one_that_is_removed_is_not(host: Host, dsn: str) -> None:
    assert host.ask("new.example") == "550"
    add(dsn, "new.example")
    assert host.comes_to("DUNNO", "new.example")
    remove(dsn, "one.example")
    assert host.comes_to("550", "one.example")
    assert host.metric("mxweir_relay_replica_lag_seconds") < PATIENCE  # it would have been an hour
    assert wait_until(lambda: host.metric("mxweir_relay_domains") == 3.0, PATIENCE)


def test_a_notification_clears_what_is_remembered_as_unknown_also_while_the_replica_is_frozen(
    directory: Path, dsn: str
) -> None:
    with Host(directory, dsn, 'poll = "1h"', 'unknown_for = "60s"') as host:
        assert host.follows()
        with closing(Mirror(host.state)) as mirror:
            mirror.freeze(1.0)
        assert host.is_at("frozen")
        assert host.ask("new.example") == "550"
        add(dsn, "new.example")
        assert host.comes_to("450", "new.example")


@pytest.mark.parametrize("rows", [1, 1000])
def test_changes_are_taken_over_where_nobody_else_wants_the_processor(
    host: Host, dsn: str, rows: int
) -> None:
    assert os.SCHED_IDLE not in policies(host.follower)
    trouble.storm(dsn, transactions=1, rows=rows)
    assert wait_until(lambda: host.metric("mxweir_relay_domains") == 3.0 + rows, PATIENCE)
    assert wait_until(lambda: os.SCHED_IDLE in policies(host.follower), PATIENCE)
    add(dsn, "next.example")
    assert wait_until(lambda: host.metric("mxweir_relay_domains") == 4.0 + rows, PATIENCE)
    assert os.sched_getscheduler(host.follower) != os.SCHED_IDLE


def policies(process: int) -> set[int]:
    """By which rules its threads have their turns."""
    found = set()
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            found.add(os.sched_getscheduler(int(thread.name)))
    return found


@pytest.mark.parametrize("restored", [True, False])
def test_a_replica_that_is_removed_or_restored_from_a_backup_is_followed_again(
    host: Host, dsn: str, restored: bool
) -> None:
    path = host.state / POSTGRES
    shutil.copy(path, host.state / "backup")
    remove(dsn, "one.example")
    assert host.comes_to("550", "one.example")
    if restored:
        (host.state / "backup").rename(path)
    else:
        path.unlink()
    assert wait_until(lambda: path.exists() and len(host.content()) == 2, PATIENCE)
    add(dsn, "new.example")
    assert wait_until(lambda: len(host.content()) == 3, PATIENCE)
    assert (host.ask("new.example"), host.ask("one.example")) == ("DUNNO", "550")


def test_a_domain_below_one_that_includes_its_subdomains_and_is_not_yet_here_passes(
    host: Host, dsn: str
) -> None:
    os.kill(host.follower, signal.SIGSTOP)
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute(
                "INSERT INTO mxweir.domains (name, include_subdomains) VALUES ('tree.example', true)"
            )
        assert host.ask("a.b.tree.example") == "DUNNO"
        assert host.ask("a.other.example") == "550"
    finally:
        os.kill(host.follower, signal.SIGCONT)


def test_questions_on_other_connections_are_answered_while_one_waits(host: Host, dsn: str) -> None:
    with psycopg.connect(dsn) as locking, PolicyClient(host.addresses.policy) as waiting:
        locking.execute("LOCK TABLE mxweir.domains IN ACCESS EXCLUSIVE MODE")
        waiting.send(request("foreign.example") + request("one.example"))
        assert host.ask("one.example") == "DUNNO"
        assert waiting.answer().startswith("450 4.3.0 ")
        assert waiting.answer() == "DUNNO"


def test_the_map_server_says_what_postgresql_says_and_never_notfound_without_it(host: Host, dsn: str) -> None:
    os.kill(host.follower, signal.SIGSTOP)
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute(
                "INSERT INTO mxweir.domains (name, next_hop) VALUES ('new.example', 'smtp:[192.0.2.1]')"
            )
        assert lookup(host, "transport new.example") == "OK smtp:[192.0.2.1]"
        assert lookup(host, "relay-domains foreign.example") == "NOTFOUND "
        with psycopg.connect(dsn) as locking:
            locking.execute("LOCK TABLE mxweir.domains IN ACCESS EXCLUSIVE MODE")
            assert lookup(host, "relay-domains other.example").startswith("TEMP ")
    finally:
        os.kill(host.follower, signal.SIGCONT)


def test_an_explanation_tells_what_postgresql_said_and_in_which_state_the_replica_is(host: Host) -> None:
    argv = command("explain", host.config_file, "--recipient", "x@foreign.example", "--context", "relay")
    told = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert "PostgreSQL was asked: not ours" in told
    assert re.search(r"^domains replica following, 3 domains, last current \d+ s ago$", told, re.MULTILINE)


def test_a_follower_that_was_killed_is_replaced_and_the_replica_is_as_whole_as_before(
    host: Host, dsn: str
) -> None:
    for number in range(2):
        os.kill(host.follower, signal.SIGKILL)
        add(dsn, f"new{number}.example")
        assert host.ask("one.example") == "DUNNO"
        assert host.comes_to("DUNNO", f"new{number}.example")
        assert wait_until(lambda count=4 + number: len(host.content()) == count, PATIENCE)  # type: ignore[misc]
    assert host.records(event="follower ended", level="error")


def test_a_first_fill_that_is_killed_again_and_again_goes_on_and_ends(directory: Path, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO mxweir.domains (name)"
            " SELECT format('d%s.example', n) FROM generate_series(1, 100000) n"
        )
    source, cursors = random.Random(), [""]
    with Host(directory, dsn) as host:
        for _ in range(3):
            pid = host.follower
            wait_until(lambda: host.progress().filled, source.random() * 0.5)
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda gone=pid: host.follower != gone, PATIENCE)  # type: ignore[misc]
            cursors.append(host.progress().cursor)
        assert host.follows()
        assert len(host.content()) == 100_003
    assert cursors == sorted(cursors)


def test_lookups_go_before_the_follower_where_processors_are_short(host: Host) -> None:
    assert os.getpriority(os.PRIO_PROCESS, host.follower) > os.getpriority(os.PRIO_PROCESS, host.child.pid)


def test_the_follower_dies_with_its_daemon_however_that_ends(host: Host) -> None:
    pid = host.follower
    host.kill()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE)


def test_a_damaged_replica_is_filled_anew_while_postgresql_answers(host: Host) -> None:
    host.stop()
    path = host.state / POSTGRES
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    host.start()
    assert host.ask("one.example") == "DUNNO"
    assert host.ask("foreign.example") == "550"
    assert host.follows()
    assert host.records(event="replica damaged", level="error")
    assert (host.state / "postgres.broken").exists()
    assert len(host.content()) == 3


def test_the_replica_is_read_after_a_restart_before_postgresql_was_heard(host: Host, dsn: str) -> None:
    host.stop()
    host.configure("host=127.0.0.1 port=1 dbname=none")
    host.start()
    assert (host.ask("one.example"), host.ask("foreign.example")) == ("DUNNO", "450")
    assert "not whole" not in host.log()


def test_a_stop_of_the_whole_service_is_no_trouble_of_the_follower(host: Host) -> None:
    pid = host.follower
    host.child.send_group(signal.SIGTERM)
    assert host.child.wait(PATIENCE) == 0
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE)
    assert not host.records(event="follower ended")
    assert host.records(event="stopped")
