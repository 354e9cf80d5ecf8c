"""What the policy daemon and the keeper of Postfix's tables tell each other: a line of JSON each; no I/O."""

import json
from typing import NamedTuple

BEAT = b"\n"
"""The line of a keeper that has nothing to say, and lives."""


class Settings(NamedTuple):
    """What a keeper needs to know: the first line that it reads. `postgres`: whether there is a replica."""

    state_dir: str
    directory: str
    postgres: bool

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return json.dumps(self).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> "Settings":
        """As it comes in."""
        return cls(*json.loads(line))


class Report(NamedTuple):
    """What a keeper did: rows put and taken out, tables written anew, rows in all; or why it did not."""

    put: int = 0
    removed: int = 0
    rebuilt: int = 0
    rows: int = 0
    trouble: str = ""

    def line(self) -> str:
        """As it goes through the pipe."""
        return json.dumps(self) + "\n"

    @classmethod
    def of_line(cls, line: bytes) -> "Report":
        """As it comes in."""
        return cls(*json.loads(line))
