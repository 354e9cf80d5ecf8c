"""When to try again: later after each failure, and never all hosts at once; no I/O.

After an outage of a server that many hosts use, each of them comes back at a
moment of its own: anywhere between now and a ceiling that doubles with each
failure ("full jitter"). Fifty hosts that lost a connection in the same instant
then make a few connections a second, and not fifty at once.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """The waits of one client; `first` and `most` in seconds are the lowest and the highest ceiling."""

    first: float = 1.0
    most: float = 10.0
    failures: int = 0
    """How often in a row it has failed."""

    def failed(self, share: float) -> float:
        """It failed: seconds until the next try; `share` is a random number from 0 to 1."""
        ceiling = min(self.most, self.first * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return ceiling * share

    def succeeded(self) -> None:
        """It worked: the next failure is the first one again."""
        self.failures = 0
