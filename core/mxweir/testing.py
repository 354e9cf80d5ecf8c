"""Stand-ins that tests of mxweir and of programs beside it may use."""

from dataclasses import dataclass, field

from mxweir.events import Event
from mxweir.facts import Facts, Folder

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
