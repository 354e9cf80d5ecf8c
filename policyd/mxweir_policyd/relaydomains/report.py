"""What the policy daemon and the follower tell each other: a line of JSON each; no I/O."""

import json
from dataclasses import asdict
from enum import StrEnum
from typing import NamedTuple

from mxweir.config.sections import Postgres

BEAT = b"\n"
"""The line of a follower that has nothing to say, and lives."""


class Settings(NamedTuple):
    """What a follower needs to know: the first line that it reads."""

    state_dir: str
    max_shrink: float
    postgres: Postgres

    def line(self) -> bytes:
        """As it goes through the pipe, which nobody else can read: it has the password."""
        return json.dumps([self.state_dir, self.max_shrink, asdict(self.postgres)]).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> "Settings":
        """As it comes in."""
        state_dir, max_shrink, postgres = json.loads(line)
        return cls(state_dir, max_shrink, Postgres(**postgres))


class Following(StrEnum):
    """What a follower is at."""

    STARTING = "starting"
    FILLING = "filling"
    FOLLOWING = "following"
    COMPARING = "comparing"
    FROZEN = "frozen"
    AWAY = "away"
    """PostgreSQL cannot be asked."""
    FAILING = "failing"
    """The replica cannot be written."""


class Report(NamedTuple):
    """What a follower says of itself.

    `trouble` is "" or one of `keeper.TROUBLES`; `share` how much of a fill or a
    comparison is done; `lag` how many seconds a change may have waited until it
    was in force.
    """

    state: Following
    trouble: str = ""
    detail: str = ""
    share: float = 1.0
    changed: int = 0
    lost: int = 0
    held: int = 0
    lag: float = 0.0

    def line(self) -> str:
        """As it goes through the pipe."""
        return json.dumps(self._asdict()) + "\n"

    @classmethod
    def of_line(cls, line: bytes) -> "Report":
        """As it comes in."""
        fields = json.loads(line)
        return cls(Following(fields.pop("state")), **fields)
