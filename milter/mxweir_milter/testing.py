"""Stand-ins that tests of the milter, and of what is built on it, may use."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic

from mxweir.breaker import Breaker, Settings
from mxweir.events import Observer
from mxweir_milter.engines import Engine
from mxweir_milter.facts import Client, Envelope
from mxweir_milter.message import Message
from mxweir_milter.pool import Gate, Lane, Pool
from mxweir_milter.scanner import Scanner
from mxweir_milter.verdict import Scored, scored

CLIENT = Client("mail.sender.example", "203.0.113.9", "helo.sender.example", "mx.example.org")
ENVELOPE = Envelope("a@sender.example", ("b@example.org",), 1, "", "4XyZ1")


def message(content: bytes = b"Subject: hello\r\n\r\nhello\r\n") -> Message:
    """A message from a plain client to one recipient."""
    return Message(CLIENT, ENVELOPE, content, 1_800_000_000.0)


def score(points: float, engine: str = "spamd") -> Scored:
    """A result with one symbol."""
    return scored(points, 5.0, ["SOME_RULE"], engine)


@dataclass
class StubEngine:
    """A scanner that answers with `answer`, or raises it, after `seconds`; it keeps what it was asked."""

    answer: Scored | Exception = field(default_factory=lambda: score(1.0))
    seconds: float = 0.0
    name: str = "spamd"
    asked: list[Message] = field(default_factory=list)
    cancelled: int = 0

    async def scan(self, message: Message) -> Scored:
        """Answer."""
        self.asked.append(message)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def pool(*engines: Engine, slots: int = 1000, position: int = 1) -> Pool:
    """One engine with these as its addresses."""
    now = monotonic()
    return Pool(
        [
            Lane(engine, Gate(Breaker(Settings(), now), slots), position, number)
            for number, engine in enumerate(engines, 1)
        ]
    )


def scanner(*engines: Engine, observe: Observer = lambda _: None, slots: int = 1000) -> Scanner:
    """A scanner with these engines, each at one address."""
    return Scanner(
        [pool(engine, slots=slots, position=position) for position, engine in enumerate(engines, 1)], observe
    )
