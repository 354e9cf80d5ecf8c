"""Keep the journal of a table's changes, in the transaction that makes these."""

from typing import Any

import lmdb

LENGTH = 200_000
"""Changes that the journal knows; who follows it and is further behind looks at everything again."""

_MOST = 10_000
"""Names that wait to be written."""


class Journaling:
    """What one transaction changes; `finish` it before its end. `database` is where the journal is."""

    def __init__(self, write: "lmdb.Transaction[bytes]", database: Any) -> None:
        self._write = write
        self._database = database
        self._waiting: list[str] = []

    def note(self, domain: str) -> None:
        """A domain has changed; "" leaves a gap: it may be any."""
        self._waiting.append(domain)
        if len(self._waiting) >= _MOST:
            self._flush()

    def finish(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        """Put all at the end, and take the oldest out."""
        with self._write.cursor(self._database) as cursor:
            number = int.from_bytes(cursor.key()) if cursor.last() else 0
            for domain in self._waiting:
                number += 1 if domain else LENGTH + 1
                cursor.put(number.to_bytes(8), domain.encode(), append=True)
            oldest = max(0, number - LENGTH).to_bytes(8)
            while cursor.first() and cursor.key() <= oldest:
                cursor.delete()
        self._waiting.clear()
