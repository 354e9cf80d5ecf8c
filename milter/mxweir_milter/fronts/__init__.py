"""Fronts: what speaks the milter protocol with Postfix, and drives a `Session` by it.

There are two. `asyncio` does it by itself, on the loop that also scans;
`libmilter` leaves it to libmilter and its threads. Which one runs is the
configuration's business; nothing outside this folder knows how it works.
"""

from typing import Protocol


class Front(Protocol):
    """What the daemon asks of either."""

    async def open(self) -> None:
        """Listen and begin to serve; raises ServiceError."""

    @property
    def ended(self) -> bool:
        """Whether it serves no more, though nobody here has stopped it."""

    @property
    def failed(self) -> bool:
        """Whether it has ended by an error."""

    def refuse_new(self) -> None:
        """Take no new sessions; those that are open go on."""

    def close_idle(self) -> None:
        """End the sessions that have no message in hand, where that can be done."""

    async def stop(self) -> None:
        """Stop serving; what is still open is cut off."""

    def sessions(self) -> int:
        """Sessions of the mail server that are open."""

    def in_hand(self) -> int:
        """Messages that have begun and are not answered."""
