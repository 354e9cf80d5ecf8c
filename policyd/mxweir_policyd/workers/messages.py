"""What the parent and a worker tell each other, and how it goes through a pipe.

Pickled, with its length in front: at both ends there is the same program, and
nobody else can write there.
"""

import pickle
from asyncio import IncompleteReadError, StreamReader
from typing import Any, NamedTuple

from mxweir.config import Config
from mxweir.events import Event
from mxweir.metrics import Figures

POLICY, MAPS = b"p", b"m"
"""What a connection that is handed over is for."""


class Domains(NamedTuple):
    """The table of domains may be another file; `pending`: a source has still to say what it has.

    `hopeless`: the follower tries in vain to connect to PostgreSQL.
    """

    pending: bool
    hopeless: bool


class Begin(NamedTuple):
    """The first order: serve by this configuration."""

    config: Config
    domains: Domains


class Take(NamedTuple):
    """Go on by this configuration; answered with None when it is in force."""

    config: Config


class Question(NamedTuple):
    """Answer a line that came in at the control socket."""

    line: bytes


class Show(NamedTuple):
    """Show the figures, as of now."""


class Ask(NamedTuple):
    """An order that wants an answer with the same number."""

    number: int
    what: Take | Question | Show


class Serving(NamedTuple):
    """The worker serves from now on."""


class Failed(NamedTuple):
    """The worker cannot start; `status` as in ServiceError."""

    why: str
    status: int


class Told(NamedTuple):
    """Something happened that is the whole service's to tell."""

    event: Event


class Beat(NamedTuple):
    """The loop has turned; so much was counted, and so many decisions were not written since the last."""

    figures: Figures
    unwritten: int


class Taken(NamedTuple):
    """The next so many of the connections that were handed over are in the worker's hands."""

    connections: int


class Closed(NamedTuple):
    """So many of the connections that were handed over are closed."""

    connections: int


class Answer(NamedTuple):
    """The answer to `Ask`."""

    number: int
    value: Any


Order = Begin | Domains | Ask
Report = Serving | Failed | Told | Beat | Taken | Closed | Answer


def packed(message: Order | Report) -> bytes:
    """A message as it goes through the pipe."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(4) + data


async def received(reader: StreamReader) -> Any:
    """The next message; None at the end of the pipe, also one in the midst of a message."""
    try:
        length = int.from_bytes(await reader.readexactly(4))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 - from our own process
    except (IncompleteReadError, ConnectionError):
        return None
