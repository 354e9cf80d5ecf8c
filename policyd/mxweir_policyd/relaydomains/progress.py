"""How far the replica of PostgreSQL's table has come; it is kept within the replica. No I/O."""

import json
from dataclasses import asdict, dataclass

Point = tuple[str, str, float]
"""Where a source stood: which table it is, at which mark of its own, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the replica has come; times in seconds since the epoch, hashes in hexadecimal."""

    point: Point = ("", "", 0.0)
    """Behind which point of the source the next changes are."""
    filled: bool = False
    """Whether all domains came over once; until then what the replica lacks means nothing."""
    cursor: str = ""
    """Up to which hash the first fill has come."""
    live: int = 0
    """Domains that are not switched off."""
    baseline: int = 0
    """The most there were since the last full comparison; `max_shrink` is a share of it."""
    held: int = 0
    """Losses that are more than `max_shrink` allows, and therefore held back."""
    compared: str | None = None
    """Up to which hash a full comparison in progress has come; None when none is."""
    behind: bool = False
    """Whether changes were missed that only the full comparison in progress brings."""
    verified: float = 0.0
    """When the last full comparison ended."""
    seen: float = 0.0
    """When the replica was last known to have all that PostgreSQL has."""

    def encode(self) -> bytes:
        """As stored: JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, stored: bytes | None) -> "Progress":
        """From the stored form; None is that of a replica not begun, and so is what cannot be read.

        What only a later version knows counts for nothing: that may have been here before.
        """
        if stored is None:
            return cls()
        try:
            told = json.loads(stored)
            fields = {name: told[name] for name in cls.__slots__ if name in told}
            identity, mark, at = told["point"]
            for cursor in (told["cursor"], told["compared"] or ""):
                bytes.fromhex(cursor)
            return cls(**fields | {"point": (identity, mark, float(at))})
        except (ValueError, TypeError, KeyError):
            return cls()
