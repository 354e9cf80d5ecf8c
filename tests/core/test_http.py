import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mxweir.endpoint import Inet, Unix
from mxweir.events import Decided, Decision
from mxweir.http import serve
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir.service import ServiceError
from mxweir.testing import question
from mxweir_ops.lab.place import free_port


class Pages:
    """The three pages of a daemon, and what it would say about itself."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.endpoint = Inet(host, free_port())
        self.metrics = Metrics("policyd")
        self.count = PolicyMetrics(self.metrics).handlers()[Decided]
        self.live = self.ready = ""
        self.stop: Callable[[], None] = serve(
            "policyd.http", self.endpoint, self.metrics, lambda: self.live, lambda: self.ready
        )

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and text of a page."""
        connection = http.client.HTTPConnection(self.endpoint.host, self.endpoint.port, timeout=20)
        with closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers.get("Content-Type", ""), response.read().decode()


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.stop()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_daemon_that_is_well_says_ok(pages, path):
    assert pages.get(path) == (200, "text/plain; charset=utf-8", "ok\n")


def test_each_page_says_what_is_wrong_and_only_its_own(pages):
    pages.ready = "starting"
    assert pages.get("/readyz")[::2] == (503, "starting\n")
    assert pages.get("/livez")[0] == 200
    pages.ready, pages.live = "", "the event loop has not turned for 12 s"
    assert pages.get("/livez")[::2] == (503, "the event loop has not turned for 12 s\n")
    assert pages.get("/readyz")[0] == 200


def test_metrics_are_as_of_each_scrape_and_in_prometheus_own_format(pages):
    for total in (1, 2, 3):
        pages.count(Decided(question(), Decision("pass", "DUNNO"), 0.001))
        status, kind, text = pages.get("/metrics")
        assert status == 200
        assert kind.startswith("text/plain; version=")
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["mxweir_policy_decisions_total"] == total


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/livez/x", "/favicon.ico", "/%00", "/..%2f..%2fetc/passwd"]
)
def test_there_is_nothing_else(pages, path):
    assert pages.get(path) == (
        404,
        "text/plain; charset=utf-8",
        "/metrics, /livez and /readyz are here\n",
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(pages, method):
    assert pages.get("/metrics", method)[0] == 405


def test_a_client_that_says_nothing_holds_up_no_other(pages):
    with socket.create_connection((pages.endpoint.host, pages.endpoint.port)):
        assert pages.get("/livez")[0] == 200


def test_a_client_that_goes_away_or_talks_nonsense_leaves_no_trace_in_the_log(pages, capfd):
    for sent in (b"", b"GET", b"GET /metrics HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff" * 100, b"\0" * 70_000):
        with socket.create_connection((pages.endpoint.host, pages.endpoint.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with suppress(ConnectionError):  # a line too long is not read to its end
                client.sendall(sent)
    assert pages.get("/livez")[0] == 200
    pages.stop()
    assert capfd.readouterr().err == ""


def test_scrapes_at_the_same_time_are_all_answered(pages):
    found = []
    threads = [threading.Thread(target=lambda: found.append(pages.get("/metrics")[0])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [200] * 12


def test_the_pages_are_served_on_ipv6_too_or_it_is_told_that_there_is_none():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        with pytest.raises(ServiceError, match=r"Cannot assign requested address|not supported"):
            serve("policyd.http", Inet("::1", free_port()), Metrics("policyd"), str, str)
        return
    pages = Pages("::1")
    try:
        assert pages.get("/livez")[0] == 200
    finally:
        pages.stop()


def test_an_address_that_is_taken_is_told_in_one_line_with_its_setting(pages):
    told = f"policyd.http: cannot listen at {pages.endpoint}: Address already in use"
    with pytest.raises(ServiceError, match=re.escape(told)):
        serve("policyd.http", pages.endpoint, pages.metrics, str, str)


def test_without_an_address_nothing_is_served():
    serve("policyd.http", None, Metrics("policyd"), str, str)()
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]


def test_a_unix_socket_is_no_place_for_them():
    with pytest.raises(ValueError, match="unix:/run/http is not a TCP address"):
        serve("policyd.http", Unix("/run/http"), Metrics("policyd"), str, str)


def test_after_the_stop_the_address_is_free_and_no_thread_is_left(pages):
    pages.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]
    again = serve("policyd.http", pages.endpoint, pages.metrics, str, str)
    assert pages.get("/livez")[0] == 200
    again()
    pages.stop = lambda: None
