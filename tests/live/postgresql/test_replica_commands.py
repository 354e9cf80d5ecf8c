"""`mxweir domains verify | freeze | thaw`, and what `check` says of the replica; with and without daemon."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mxweir_ops.lab.daemons import command
from mxweir_ops.lab.host import PATIENCE, Host, add, prepare, remove
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.relaydomains.keeper import take_lock

ALL = [f"d{number}.example" for number in range(10)]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def dsn(database: str) -> str:
    prepare(database, *ALL)
    return database


@pytest.fixture
def host(dsn: str) -> Iterator[Host]:
    """Not running."""
    with temporary_directory() as directory:
        made = Host(directory, dsn)
        yield made
        if made.running:
            made.stop()


@pytest.fixture
def run(host: Host) -> Run:
    """Runs `mxweir domains WORDS`; its status, and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        argv = command("domains", host.config_file, *words)
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_without_a_daemon_verify_fills_the_replica_and_compares_it(host: Host, run: Run, dsn: str) -> None:
    assert run("verify") == (0, "10 domains, as PostgreSQL has them\n")
    add(dsn, "new.example")
    assert json.loads(run("verify", "--json")[1]) == {"domains": 11, "held": 0, "accepted": 0}
    assert len(host.content()) == 11


def test_with_a_daemon_verify_has_its_follower_compare(host: Host, run: Run) -> None:
    host.start()
    assert host.follows()
    assert run("verify") == (0, "10 domains, as PostgreSQL has them\n")


def test_losses_that_are_held_go_when_they_are_accepted(host: Host, run: Run, dsn: str) -> None:
    host.start()
    assert host.follows()
    remove(dsn, *ALL[:5])
    host.wait_for(event="relay domains refused to shrink", level="error")
    assert host.ask(ALL[0]) == "DUNNO"
    status, told = run("verify")
    assert status == 1
    assert "but 5 that it has no more are held back" in told
    assert "5 losses held back" in run("check", ALL[0])[1]
    assert host.metric("mxweir_relay_replica_held") == 5.0
    status, told = run("verify", "--accept")
    assert (status, told) == (0, "5 removed, which were held; 5 domains, as PostgreSQL has them\n")
    assert host.comes_to("550", ALL[0])
    assert wait_until(lambda: host.metric("mxweir_relay_replica_held") == 0.0, PATIENCE)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_frozen_replica_stays_as_it_is_until_it_thaws(
    host: Host, run: Run, dsn: str, restarted: bool
) -> None:
    assert run("freeze")[0] == 2
    host.start()
    assert host.follows()
    assert run("freeze") == (0, "the replica of this host is frozen\n")
    assert json.loads(run("freeze", "--json")[1]) == {"frozen": True, "changed": False}
    if restarted:
        host.stop()
        host.start()
    assert host.is_at("frozen")
    remove(dsn, ALL[0])
    assert host.ask(ALL[0]) == "DUNNO"
    assert "frozen" in run("check", ALL[0])[1]
    assert run("verify")[0] == 2
    assert host.metric("mxweir_relay_replica_frozen") == 1.0
    assert run("thaw") == (0, "the replica of this host is not frozen any more\n")
    assert host.comes_to("550", ALL[0])
    assert host.follows()


def test_who_waits_for_a_comparison_is_told_that_the_replica_was_frozen_meanwhile(
    host: Host, run: Run
) -> None:
    assert run("verify")[0] == 0
    lock = take_lock(host.state)
    assert lock is not None
    try:
        argv = command("domains", host.config_file, "verify")
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as waiting:
            assert wait_until(lambda: host.progress().compared is not None, PATIENCE)
            assert run("freeze")[0] == 0
            told = waiting.communicate()[1]
    finally:
        os.close(lock)
    assert (waiting.returncode, "the replica is frozen on this host" in told) == (2, True)


def test_check_tells_what_postgresql_says_and_what_this_host_has(host: Host, run: Run, dsn: str) -> None:
    assert run("verify")[0] == 0
    add(dsn, "new.example")
    status, told = run("check", "new.example")
    assert (status, told.splitlines()[0]) == (0, "new.example: ours")
    assert told.splitlines()[1].startswith("replica of this host: not ours, last current ")
    assert json.loads(run("check", ALL[0], "--json")[1])["here"]["replica"] == "ours"


def test_without_postgresql_there_is_nothing_to_freeze(tmp_path: Path) -> None:
    config = tmp_path / "mxweir.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n')
    done = subprocess.run(command("domains", config, "freeze"), capture_output=True, text=True, check=False)
    assert (done.returncode, "there is no [postgres]" in done.stderr) == (2, True)
