"""`/metrics`, `/livez` and `/readyz` on the loopback, from a thread of their own.

The pages are for a monitoring system on the same host, so the standard
library's server does; `prometheus_client` writes the metrics. `/livez` fails
when the daemon's loop has not turned for a while, never because a backend is
down; `/readyz` fails until the daemon listens and while it drains.
"""

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mxweir.endpoint import Endpoint, Inet
from mxweir.metrics import Metrics
from mxweir.service import ServiceError

State = Callable[[], str]
"""Gives "" when all is well, else what is not."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 16

    def server_bind(self) -> None:
        """Bind, and skip what HTTPServer does then: it asks the DNS for our name, which may take a minute."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no trouble of ours, and a traceback is no line of the log."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line."""


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.collect()


def serve(
    key: str, endpoint: Endpoint | None, metrics: Metrics, live: State, ready: State
) -> Callable[[], None]:
    """Serve the three pages, unless there is no address; returns what stops it.

    Raises ServiceError, with the setting's `key`, when the address is not to be had.
    """
    if endpoint is None:
        return lambda: None
    if not isinstance(endpoint, Inet):
        raise ValueError(f"{endpoint} is not a TCP address")
    registry = CollectorRegistry()
    registry.register(_Collector(metrics))
    page = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _plain(start_response, "405 Method Not Allowed", "read only")
        if path == "/metrics":
            return cast("Iterable[bytes]", page(environ, start_response))
        if path in ("/livez", "/readyz"):
            trouble = live() if path == "/livez" else ready()
            return _plain(start_response, "503 Service Unavailable" if trouble else "200 OK", trouble or "ok")
        return _plain(start_response, "404 Not Found", "/metrics, /livez and /readyz are here")

    kind = _Server6 if ":" in endpoint.host else _Server
    try:
        server = make_server(endpoint.host, endpoint.port, app, server_class=kind, handler_class=_Handler)
    except OSError as error:
        raise ServiceError(f"{key}: cannot listen at {endpoint}: {error.strerror}") from error
    # Without a poll: to look ten times a second whether to stop costs more than all else of an idle daemon.
    thread = threading.Thread(target=server.serve_forever, args=(None,), name="http", daemon=True)
    thread.start()

    def stop() -> None:
        with suppress(OSError):  # it has been stopped before
            server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        server.shutdown()
        server.server_close()
        thread.join(5)

    return stop


def _plain(start_response: Callable[..., Any], status: str, text: str) -> list[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
