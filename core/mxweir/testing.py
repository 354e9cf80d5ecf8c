"""Stand-ins that tests of mxweir and of programs beside it may use."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from mxweir.events import Event
from mxweir.facts import ContentFacts, Facts, Folder

_FOLDER = Folder()


@dataclass
class SettableClock:
    """A clock that stands until it is moved; seconds."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock, forwards or back."""
        self.now += seconds


class _Jumping(selectors.DefaultSelector):
    """Never waits for a time to come: it is there."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; a wait for anything else ends at once, and that much later."""
        if timeout is None:
            return super().select()
        ready = super().select(0)
        if not ready:
            self.now += max(0.0, timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as there is nothing to do before it.

    Whatever sleeps and has deadlines on it takes no time, and a busy machine makes
    nothing late. For what runs in this thread alone: others it would not wait for.
    """

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since it was made, all of which it has jumped over."""
        return self._jumping.now


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Have a test run on a loop whose clock jumps."""

    @wraps(test)
    def run(*arguments: object, **named: object) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(*arguments, **named))

    return run


@dataclass
class Recorder:
    """An observer that keeps what it is told."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Keep one event."""
        self.events.append(event)


def question(
    client: str = "192.0.2.1",
    sender: str = "alice@a.example",
    recipient: str = "bob@b.example",
    *,
    folder: Folder = _FOLDER,
    state: str = "RCPT",
    **others: str,
) -> Facts:
    """Facts of a policy question; `others` are helo, sasl_username, context, instance, queue_id, size."""
    raw = {name: others.get(name, "").encode() for name in Facts._fields[3:]} | {"state": state.encode()}
    return Facts(
        folder.client[client.encode()],
        folder.sender[sender.encode()],
        folder.recipient[recipient.encode()],
        **raw,
    )


def whole_message(recipients: int, instance: bytes = b"") -> ContentFacts:
    """What the milter knows at the end of a message to so many recipients at one.example."""
    return ContentFacts(
        client=_FOLDER.client[b"192.0.2.1"],
        sender=_FOLDER.sender[b"s@y.example"],
        helo=b"",
        sasl_username=b"",
        instance=instance,
        size_in_bytes=1,
        recipients=tuple(_FOLDER.recipient[b"r%d@one.example" % number] for number in range(recipients)),
        recipient_count=recipients,
        authors=(),
        repliers=(_FOLDER.sender[b"a@x.example"],),
    )
