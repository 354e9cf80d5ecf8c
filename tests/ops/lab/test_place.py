"""Ports for private servers: free, and nobody else's."""

import socket

import pytest

from mxweir_ops.lab import place
from mxweir_ops.lab.place import SHARE, free_port


def test_a_port_is_below_those_that_the_kernel_gives_out() -> None:
    assert max(free_port() for _ in range(100)) < 32_768  # as Linux begins, ip(7): ip_local_port_range


def test_runs_that_go_on_side_by_side_get_no_port_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for share in ("0/2", "1/2"):
        monkeypatch.setenv(SHARE, share)
        drawn.append({free_port() for _ in range(100)})
    assert [len(ports) for ports in drawn] == [100, 100]
    assert not drawn[0] & drawn[1]


def test_a_port_that_somebody_has_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setenv(SHARE, "0/1")
    monkeypatch.setattr(place, "_PORTS", (taken, free))
    monkeypatch.setattr(place, "_handed_out", [])
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", taken))
        assert free_port() == free
