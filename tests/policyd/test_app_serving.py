"""The running daemon and its clients: Postfix as it behaves, and whatever else can connect."""

import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from mxweir_ops.lab.asking import USUAL
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.protocol import format_request

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

REQUEST = format_request(USUAL)


def test_a_connection_serves_request_after_request(policyd: "Policyd", sender: str) -> None:
    with policyd.client() as client:
        answers = [client.ask(sender=sender, instance=f"{sender}.{number}") for number in range(5)]
    assert answers[:3] == ["DUNNO"] * 3
    assert [answer[:9] for answer in answers[3:]] == ["550 5.7.1"] * 2


def test_requests_that_come_together_are_answered_in_their_order(policyd: "Policyd", sender: str) -> None:
    foreign = format_request(USUAL | {"recipient": "x@foreign.example"})
    blocked = format_request(USUAL | {"sender": "blocked@bulk.example"})
    with policyd.client() as client:
        client.send(foreign + REQUEST + blocked)
        answers = [client.answer()[:9] for _ in range(3)]
    assert answers == ["550 5.7.1", "DUNNO", "554 5.7.1"]


def test_a_request_that_comes_byte_by_byte_is_answered(policyd: "Policyd") -> None:
    with policyd.client() as client:
        for byte in REQUEST:
            client.send(bytes([byte]))
        assert client.answer() == "DUNNO"


def test_connections_share_the_counters(policyd: "Policyd", sender: str) -> None:
    answers = [policyd.ask(sender=sender, instance=f"{sender}.{number}")[:3] for number in range(4)]
    assert answers == ["DUN", "DUN", "DUN", "550"]


def test_hundreds_of_connections_are_served_at_once(policyd: "Policyd") -> None:
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(policyd.client()) for _ in range(300)]
        for client in clients:
            client.send(REQUEST)
        assert [client.answer() for client in clients] == ["DUNNO"] * 300


def test_an_idle_connection_and_one_half_way_through_a_request_hold_up_nobody_and_go_on_later(
    policyd: "Policyd",
) -> None:
    with policyd.client() as idle, policyd.client() as half:
        half.send(REQUEST[:100])
        for _ in range(50):
            assert policyd.ask() == "DUNNO"
        half.send(REQUEST[100:])
        assert half.answer() == "DUNNO"
        assert idle.ask() == "DUNNO"


@pytest.mark.parametrize("length", [1, 100, len(REQUEST) - 1])
def test_half_a_request_and_a_hangup_harm_nobody_and_are_told(policyd: "Policyd", length: int) -> None:
    with policyd.client() as other:
        with policyd.client() as client:
            client.send(REQUEST[:length])
        assert other.ask() == "DUNNO"
    assert policyd.wait_for(event="connection closed within a request")


def test_a_client_that_asks_and_hangs_up_at_once_harms_nobody(policyd: "Policyd") -> None:
    with policyd.client() as other:
        for _ in range(100):
            with policyd.client() as client:
                client.send(REQUEST * 20)
            assert other.ask() == "DUNNO"


def test_ten_megabytes_without_a_newline_are_refused_without_harm_to_others_or_memory(
    policyd: "Policyd",
) -> None:
    before = policyd.resident()
    with policyd.client() as other:
        with policyd.client() as client, pytest.raises((ConnectionError, TimeoutError)):
            client.send(b"x" * 10_000_000)
        assert other.ask() == "DUNNO"
    assert policyd.wait_for(event="policy protocol error")
    assert policyd.resident() < before + 5_000_000


@pytest.mark.parametrize(
    "data",
    [
        format_request(USUAL | {"sender": "a\0b"}),
        b"".join(b"a%d=b\n" % number for number in range(10_000)) + REQUEST,
        b"GET / HTTP/1.1\r\nHost: policy\r\n\r\n\n\n",
        b"\x16\x03\x01\x02\x00\n\n",
        b"\n\n",
    ],
    ids=["NUL", "10,000 attributes", "HTTP", "TLS", "nothing"],
)
def test_nonsense_closes_its_own_connection_and_no_other(policyd: "Policyd", data: bytes) -> None:
    with policyd.client() as other, policyd.client() as client:
        assert other.ask() == "DUNNO"
        with suppress(ConnectionError):  # it is closed before all of that is read
            client.send(data)
        assert client.is_closed()
        assert other.ask() == "DUNNO"


def test_a_client_that_never_reads_its_answers_is_closed_and_told(own: "Policyd") -> None:
    own.start()
    with connect(own.addresses.policy) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            client.sendall(REQUEST * 200_000)
        assert own.wait_for(event="peer does not read its answers")
    assert own.ask() == "DUNNO"


def test_connections_above_the_bound_are_closed_and_told_and_the_others_served(own: "Policyd") -> None:
    own.configure(max_connections="5")
    own.start()
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(own.client()) for _ in range(5)]
        assert [client.ask() for client in clients] == ["DUNNO"] * 5
        with own.client() as more:
            assert more.is_closed()
        assert [client.ask() for client in clients] == ["DUNNO"] * 5
    assert own.wait_for(event="too many connections")["detail"] == "max_connections = 5"
    assert wait_until(lambda: "\nmxweir_policy_connections 0.0" in own.page("/metrics")[1], 30)
    with own.client() as client:
        assert own.ask() == "DUNNO"
        assert client.ask() == "DUNNO"


def netstring(content: str) -> bytes:
    return f"{len(content)}:{content},".encode()


def test_the_map_server_answers_both_tables_on_one_connection_however_the_lookups_come(
    policyd: "Policyd",
) -> None:
    asked = ("relay-domains example.org", "transport a.below.tree.example.", "transport foreign.example")
    answers = ("OK example.org", "OK smtp:[192.0.2.25]", "NOTFOUND ")
    sent, expected = b"".join(map(netstring, asked)), b"".join(map(netstring, answers))
    with connect(policyd.addresses.maps) as client, client.makefile("rb") as stream:
        client.sendall(sent)
        assert stream.read(len(expected)) == expected
        for byte in sent:
            client.sendall(bytes([byte]))
        assert stream.read(len(expected)) == expected


def test_nonsense_closes_its_own_connection_to_the_map_server_and_no_other(policyd: "Policyd") -> None:
    with connect(policyd.addresses.maps) as other, connect(policyd.addresses.maps) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100) == b""
        other.sendall(netstring("relay-domains example.org"))
        assert other.recv(100) == netstring("OK example.org")
    assert policyd.wait_for(event="map protocol error")["detail"] == "not a netstring; connection closed"


def test_a_decision_is_one_line_that_names_rule_key_and_figure(policyd: "Policyd", sender: str) -> None:
    for number in range(4):
        policyd.ask(
            sender=sender, instance=f"{sender}.{number}", queue_id="4XyZ", recipient="Anna@Example.ORG"
        )
    line = policyd.wait_for(event="decision", sender=sender, verdict="reject")
    expected = {
        "queue_id": "4XyZ",
        "instance": f"{sender}.3",
        "state": "RCPT",
        "client": "203.0.113.9",
        "recipient": "Anna@Example.ORG",
        "check": "limits",
        "rule": "sender",
        "key": sender,
        "used": "3/3",
    }
    assert expected.items() <= line.items()
    assert line["action"].startswith("550 5.7.1 You are sending too much mail (limit sender, 3/day)")
    assert float(line["ms"]) >= 0.0


@pytest.mark.parametrize("hostile", [b"a\rb", b"\x1b[2J", b"\xff\xfe", "\u2028\u202e".encode(), b'" event=x'])
def test_no_client_can_forge_a_line(policyd: "Policyd", sender: str, hostile: bytes) -> None:
    marked = format_request(USUAL | {"sender": sender, "queue_id": "MARK"})
    with policyd.client() as client:
        client.send(marked.replace(b"sender=s", b"sender=" + hostile + b"s"))
        assert client.answer() == "DUNNO"
    assert wait_until(lambda: bool(policyd.records(event="decision", queue_id="MARK")), 30)
    assert all(line.isprintable() and line.startswith("{") for line in policyd.log().splitlines())
