"""Spam scanners: one module a protocol, and the one shape they all have."""

from collections.abc import Iterable
from typing import Protocol

from mxweir.config import Engine as EngineSettings
from mxweir_milter.engines.spamd import Spamd
from mxweir_milter.message import Message
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


def build(settings: Iterable[EngineSettings]) -> tuple[Engine, ...]:
    """The configured scanners in their order. Of other types than spamd the configuration check complains."""
    return tuple(Spamd(engine.address) for engine in settings if engine.type == "spamd")
