"""Spam scanners: one module a protocol, and the one shape they all have."""

import ssl
from typing import Protocol

from mxweir.config import Engine as EngineSettings
from mxweir.service import SettingError
from mxweir_milter.engines.exchange import Route
from mxweir_milter.engines.names import Names
from mxweir_milter.engines.rspamd import Rspamd
from mxweir_milter.engines.spamd import Spamd
from mxweir_milter.message import Message
from mxweir_milter.sockets import Sockets
from mxweir_milter.verdict import Scored


class Engine(Protocol):
    """A scanner at one address."""

    @property
    def name(self) -> str:
        """Its kind, from a closed set: it becomes a metric label and stands in headers."""

    async def scan(self, message: Message) -> Scored:
        """Have a message scanned.

        Raises EngineError or OSError. Takes as long as it takes: the caller
        cancels it at the deadline, and nothing may be left behind then.
        """


def build(settings: EngineSettings, place: str, names: Names, sockets: Sockets) -> tuple[Engine, ...]:
    """A client for each address of a configured scanner; `place` is its place in the configuration.

    Raises SettingError when the certificates cannot be used.
    """
    tls = _tls(settings, place) if settings.tls else None
    routes = (Route(address, names, sockets, tls) for address in settings.address)
    if settings.type == "rspamd":
        return tuple(Rspamd(route, settings.password or "") for route in routes)
    return tuple(Spamd(route) for route in routes)


def _tls(settings: EngineSettings, place: str) -> ssl.SSLContext:
    """Verifies the other side's certificate and name, always."""
    try:
        return ssl.create_default_context(cafile=settings.ca)
    except OSError as error:
        why = error.strerror or str(error)
        raise SettingError(f"{place}.ca: {settings.ca} cannot be used: {why}") from error
