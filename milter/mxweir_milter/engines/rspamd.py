"""Rspamd at one address: its normal worker or its controller, which wants a password."""

from collections.abc import Coroutine
from typing import Any

from mxweir_milter.engines.checkv2 import Check
from mxweir_milter.engines.exchange import Route, exchange
from mxweir_milter.message import Message
from mxweir_milter.verdict import Scored


class Rspamd:
    """An Rspamd on a unix socket or TCP port, behind TLS or not."""

    name = "rspamd"

    def __init__(self, route: Route, password: str = "") -> None:
        self._route = route
        self._password = password

    def scan(self, message: Message) -> Coroutine[Any, Any, Scored]:
        """Have a message scanned; raises EngineError, or OSError when nobody can be reached."""
        check = Check(message, self._password, self.name)
        return exchange(self._route, check.request, check, half_close=False)

    def __str__(self) -> str:
        return f"rspamd at {self._route.endpoint}"
