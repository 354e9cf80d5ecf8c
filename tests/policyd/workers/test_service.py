"""Two worker processes answer as one service."""

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from mxweir.control import ask
from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.daemons import connections
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import format_request

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

Connect = Callable[["Policyd"], dict[int, PolicyClient]]
SLACK = 20.0


def metric(daemon: "Policyd", series: str) -> float:
    """What the page shows of one series; 0 where it has none."""
    lines = daemon.page("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} "))


def ours(client: PolicyClient, domain: str) -> bool:
    """Whether a worker takes a domain for ours."""
    return client.ask(recipient=f"anna@{domain}", policy_context="relay") == "DUNNO"


def test_connections_that_come_together_are_shared_out_evenly(team: "Policyd", connected: Connect) -> None:
    """A client keeps its connection for minutes, so a worker that took most would go on with most."""
    connected(team)
    with ExitStack() as stack:
        clients = [stack.enter_context(team.client()) for _ in range(62)]
        for number, client in enumerate(clients):
            assert client.ask(sender=f"{number}@even.example") == "DUNNO"
        # A page that a busy worker did not answer in time shows what it said last.
        assert wait_until(lambda: metric(team, "mxweir_policy_connections") == 64.0, SLACK)
        assert [connections(pid, team.addresses.policy) for pid in team.workers] == [32, 32]


def test_both_workers_count_in_one_place(team: "Policyd", connected: Connect, sender: str) -> None:
    first, second = connected(team).values()
    answers = [
        client.ask(sender=sender, instance=f"{sender}.{number}")[:3]
        for number, client in enumerate((first, second, first, second))
    ]
    assert answers == ["DUN", "DUN", "DUN", "550"]


def test_the_page_shows_the_figures_of_one_service(team: "Policyd", connected: Connect, sender: str) -> None:
    passed = 'mxweir_policy_decisions_total{action="pass",check="",rule=""}'
    clients = connected(team).values()
    before = metric(team, passed), metric(team, "mxweir_policy_answer_seconds_count")
    for number, client in enumerate(clients):
        client.ask(sender=f"{number}{sender}")
    after = metric(team, passed), metric(team, "mxweir_policy_answer_seconds_count")
    assert [new - old for new, old in zip(after, before, strict=True)] == [2.0, 2.0]
    assert metric(team, "mxweir_policy_connections") == 2.0


def test_what_goes_wrong_in_both_is_counted_for_each_and_told_once(
    team: "Policyd", connected: Connect
) -> None:
    series = 'mxweir_troubles_total{daemon="policyd",what="policy protocol error"}'
    before = metric(team, series)
    for client in connected(team).values():
        client.send(b"\n\n")
        assert client.is_closed()
    assert wait_until(lambda: metric(team, series) - before == 2.0, SLACK)
    assert len([line for line in team.records(event="policy protocol error") if "detail" in line]) == 1


def test_every_line_of_the_log_is_whole_and_none_is_missing(team: "Policyd", connected: Connect) -> None:
    long = "x" * 1000
    requests = b"".join(
        format_request(USUAL | {"sender": f"{long}@a{number}.example", "queue_id": "WHOLE"})
        for number in range(200)
    )
    clients = connected(team).values()
    for client in clients:
        client.send(requests)
    for client in clients:
        assert {client.answer() for _ in range(200)} == {"DUNNO"}
    assert wait_until(lambda: team.log().count("WHOLE") >= 400, SLACK)
    lines = [json.loads(line) for line in team.log().splitlines()]
    assert sum(line.get("queue_id") == "WHOLE" for line in lines) == 400


def test_a_request_is_explained_by_a_worker(team: "Policyd", connected: Connect, sender: str) -> None:
    for client in connected(team).values():
        client.ask(sender=sender, instance=f"{sender}{id(client)}")
    said = ask(team.state, "policyd", {"explain": USUAL | {"sender": sender, "instance": "new"}})
    assert said is not None
    assert (said["action"], said["domains"]) == ("DUNNO", "")
    (limit,) = [step for step in said["trail"] if step["check"] == "limits"]
    assert limit["figure"] == "2/3"


def test_lookups_in_maps_are_answered(team: "Policyd") -> None:
    for _ in range(2):
        assert team.look_up("relay-domains", "example.org") == "OK example.org"


def test_an_edited_domains_file_is_taken_by_both(own: "Policyd", connected: Connect) -> None:
    own.start()
    clients = connected(own).values()
    own.domains.write_text(own.domains.read_text() + "new.example\n")
    for client in clients:
        assert wait_until(partial(ours, client, "new.example"), SLACK)


def test_a_table_of_domains_that_is_replaced_is_taken_by_both(own: "Policyd", connected: Connect) -> None:
    own.start()
    clients = connected(own).values()
    table = own.state / "domains.lmdb"
    table.rename(table.with_name("away"))
    own.wait_for(SLACK, event="domain table replaced")
    own.domains.write_text(own.domains.read_text() + "new.example\n")
    for client in clients:
        assert wait_until(partial(ours, client, "new.example"), SLACK)


def test_connections_above_the_bound_of_the_service_are_closed_and_told(own: "Policyd") -> None:
    own.configure(max_connections="5")
    own.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(own.client()) for _ in range(5)]
        assert [client.ask(sender=f"{id(client)}@a.example") for client in clients] == ["DUNNO"] * 5
        with own.client() as more:
            assert more.is_closed()
        assert own.wait_for(event="too many connections")["detail"] == "max_connections = 5"
    assert wait_until(lambda: metric(own, "mxweir_policy_connections") == 0.0, SLACK)
    assert own.ask() == "DUNNO"


def test_a_reload_reaches_both_and_drops_no_connection(own: "Policyd", connected: Connect) -> None:
    own.start()
    clients = connected(own).values()
    own.configure('[[access]]\nblock = "sender"\nvalue = "newly@blocked.example"\n')
    own.reload()
    own.wait_for(SLACK, event="configuration reloaded")
    for client in clients:
        assert client.ask(sender="newly@blocked.example").startswith("554")


def test_a_broken_file_is_told_once_and_changes_nothing(own: "Policyd", connected: Connect) -> None:
    own.start()
    clients = connected(own).values()
    own.config_file.write_text("broken")
    own.reload()
    own.wait_for(SLACK, event="configuration not reloaded", level="error")
    for client in clients:
        assert client.ask(sender="blocked@bulk.example").startswith("554")
    assert len(own.records(event="configuration not reloaded", level="error")) == 1


def test_a_stop_drains_both_and_ends_with_status_0(own: "Policyd", connected: Connect) -> None:
    own.configure(drain='"60s"')
    own.start()
    request = format_request(USUAL | {"sender": "bert@drained.example"})
    clients, workers = connected(own).values(), own.workers
    with own.client() as idle:
        assert idle.ask() == "DUNNO"
        for client in clients:
            client.send(request[:50])
        own.child.send(signal.SIGTERM)
        assert idle.is_closed()
        for client in clients:
            client.send(request[50:])
            assert client.answer() == "DUNNO"
            assert client.is_closed()
    assert own.child.wait(SLACK) == 0
    assert own.records(event="stopped")
    assert not list(own.directory.rglob("*policy")) + list(own.state.glob("*.control"))
    assert not own.records(event="worker ended") + own.records(event="worker hung")
    assert "Traceback" not in own.log()
    assert len(workers) == 2


def test_a_signal_to_all_processes_at_once_is_the_parents_to_obey(own: "Policyd", connected: Connect) -> None:
    own.configure(drain='"60s"')
    own.start()
    request = format_request(USUAL | {"sender": "bert@drained.example"})
    (first, _) = connected(own).values()
    first.send(request[:50])
    own.child.send_group(signal.SIGINT)
    first.send(request[50:])
    assert first.answer() == "DUNNO"
    assert own.child.wait(SLACK) == 0
    assert not own.records(event="worker ended")
