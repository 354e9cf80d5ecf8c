"""Memory for the content of messages, shared by all that are in hand.

A bounded size for each message and a bounded number of sessions would not do:
2,000 sessions with half a megabyte each are a gigabyte.
"""

import threading


class Room:
    """Counts bytes up to `most`; for several threads, because libmilter has many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._one_at_a_time = threading.Lock()

    def take(self, size: int) -> bool:
        """Use that many bytes more; false, and nothing used, when there are not as many."""
        with self._one_at_a_time:
            if self.used + size > self.most:
                return False
            self.used += size
            return True

    def give(self, size: int) -> None:
        """Use that many bytes less."""
        with self._one_at_a_time:
            self.used -= size
