"""Stand-ins that tests of mxweir and of programs beside it may use."""

from dataclasses import dataclass, field

from mxweir.events import Event


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
