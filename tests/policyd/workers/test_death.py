"""Workers that die, and what Postfix, Prometheus and the operator see of it."""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import format_request

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

Connect = Callable[["Policyd"], dict[int, PolicyClient]]
SLACK = 20.0
PASSED = 'mxweir_policy_decisions_total{action="pass",check="",rule=""}'


def metric(daemon: "Policyd", series: str) -> float:
    """What the page shows of one series; 0 where it has none."""
    lines = daemon.page("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} "))


def runs(pid: int) -> bool:
    """Whether a process is there, and not only what is left of it."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a file of the kernel's
            return stat.read().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_a_worker_that_is_killed_is_replaced_and_the_other_goes_on(
    own: "Policyd", connected: Connect
) -> None:
    own.start()
    (killed, lost), (left, kept) = connected(own).items()
    os.kill(killed, signal.SIGKILL)
    assert lost.is_closed()
    assert kept.ask(sender="bert@kept.example") == "DUNNO"
    assert own.ask(sender="bert@new.example") == "DUNNO"
    assert own.wait_for(SLACK, event="worker ended")["detail"].startswith("signal 9 after ")
    new = own.wait_for(SLACK, event="worker replaced")["process"]
    assert sorted(own.workers) == sorted([left, new])
    assert kept.ask(sender="bert@kept.example", instance="2") == "DUNNO"
    assert set(connected_after(own, kept, connected)) == {left, new}
    assert own.page("/readyz")[0] == 200


def connected_after(own: "Policyd", kept: PolicyClient, connected: Connect) -> dict[int, PolicyClient]:
    kept.close()
    return connected(own)


def test_a_question_that_a_dying_worker_had_read_is_answered_by_another_and_counted_once(
    own: "Policyd", connected: Connect, sender: str
) -> None:
    """What Postfix does: it sees the connection closed, and repeats the question on a new one."""
    own.start()
    (pid, client), _ = connected(own).items()
    os.kill(pid, signal.SIGSTOP)
    client.send(own_request(sender, "1"))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ConnectionError):
        client.answer()
    with own.client() as again:
        answers = [again.ask(sender=sender, instance=instance)[:3] for instance in ("1", "2", "3", "4")]
    assert answers == ["DUN", "DUN", "DUN", "550"]


def test_a_question_that_was_answered_and_is_repeated_after_a_death_is_counted_once(
    own: "Policyd", connected: Connect, sender: str
) -> None:
    own.start()
    (pid, client), _ = connected(own).items()
    assert client.ask(sender=sender, instance="1") == "DUNNO"
    os.kill(pid, signal.SIGKILL)
    assert client.is_closed()
    with own.client() as again:
        answers = [again.ask(sender=sender, instance=instance)[:3] for instance in ("1", "2", "3", "4")]
    assert answers == ["DUN", "DUN", "DUN", "550"]


def own_request(sender: str, instance: str) -> bytes:
    return format_request(USUAL | {"sender": sender, "instance": instance})


def test_a_connection_that_comes_when_there_is_no_worker_waits_for_one(own: "Policyd") -> None:
    own.start()
    for pid in own.workers:
        os.kill(pid, signal.SIGKILL)
    with own.client() as client:
        client.socket.settimeout(SLACK)
        assert client.ask() == "DUNNO"


def test_counters_do_not_go_back_when_a_worker_dies(own: "Policyd", connected: Connect) -> None:
    own.start()
    (pid, client), _ = connected(own).items()
    for number in range(20):
        client.ask(sender=f"{number}@a.example")
    before = metric(own, PASSED), metric(own, "mxweir_policy_answer_seconds_count")
    os.kill(pid, signal.SIGKILL)
    own.wait_for(SLACK, event="worker replaced")
    assert (metric(own, PASSED), metric(own, "mxweir_policy_answer_seconds_count")) == before
    assert metric(own, 'mxweir_troubles_total{daemon="policyd",what="worker ended"}') == 1.0


def test_a_worker_that_comes_later_has_the_configuration_in_force_and_not_that_of_the_start(
    own: "Policyd", connected: Connect
) -> None:
    own.start()
    own.configure('[[access]]\nblock = "sender"\nvalue = "newly@blocked.example"\n', max_connections="7")
    own.reload()
    own.wait_for(SLACK, event="configuration reloaded")
    assert own.records(event="needs a restart to take effect")
    own.config_file.write_text("broken")
    for pid in own.workers:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: len(own.records(event="worker replaced")) >= 2, SLACK)
    for client in connected(own).values():
        assert client.ask(sender="newly@blocked.example").startswith("554")


def test_no_worker_outlives_the_daemon_however_that_ends(own: "Policyd", connected: Connect) -> None:
    own.start()
    workers, clients = own.workers, connected(own).values()
    os.kill(own.child.pid, signal.SIGKILL)
    for client in clients:
        assert client.is_closed()
    assert wait_until(lambda: not any(map(runs, workers)), SLACK)
    own.kill()
    own.start()
    assert own.ask() == "DUNNO"


def test_a_stop_ends_a_worker_that_does_not_hear_of_it(own: "Policyd") -> None:
    own.configure(drain='"200ms"')
    own.start()
    frozen, other = own.workers
    os.kill(frozen, signal.SIGSTOP)
    own.child.send(signal.SIGTERM)
    assert own.child.wait(SLACK) == 0
    assert not runs(frozen)
    assert not runs(other)
    assert own.wait_for(event="worker hung")["detail"] == (
        f"process {frozen} did not end in its time; killed"
    )
