"""SpamAssassin's spamd at one address.

The sending side is shut down after the message (a half-close): with it spamd
answers whatever is wrong with the length or the last line, without it spamd
waits for more until it times out.
"""

from collections.abc import Coroutine
from typing import Any

from mxweir_milter.engines.exchange import Route, exchange
from mxweir_milter.engines.spamc import ResponseReader, symbols_request
from mxweir_milter.message import Message
from mxweir_milter.received import prologue
from mxweir_milter.verdict import Scored


class Spamd:
    """A spamd on a unix socket or TCP port."""

    name = "spamd"

    def __init__(self, route: Route) -> None:
        self._route = route

    def scan(self, message: Message) -> Coroutine[Any, Any, Scored]:
        """Have a message scanned; raises EngineError, or OSError when nobody can be reached."""
        head = prologue(message.client, message.envelope, message.arrived)
        request = symbols_request(head, message.content)
        return exchange(self._route, request, ResponseReader(self.name), half_close=True)

    def __str__(self) -> str:
        return f"spamd at {self._route.endpoint}"
