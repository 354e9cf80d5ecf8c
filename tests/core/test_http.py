import socket
import urllib.request

import pytest

from mxweir import http
from mxweir.endpoint import Inet
from mxweir.metrics import Metrics


def free_port(family: socket.AddressFamily, host: str) -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
def test_the_pages_are_served_without_asking_the_dns_for_any_name(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, host: str
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the DNS was asked")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname", "getnameinfo"):
        monkeypatch.setattr(socket, name, fail)
    try:
        endpoint = Inet(host, free_port(family, host))
    except OSError:
        pytest.skip(f"{host} cannot be had here")
    stop = http.serve(endpoint, Metrics("test"), lambda: "", lambda: "starting")
    try:
        address = str(endpoint).removeprefix("inet:")
        with urllib.request.urlopen(f"http://{address}/livez", timeout=10) as answer:
            assert answer.read() == b"ok\n"
    finally:
        stop()
