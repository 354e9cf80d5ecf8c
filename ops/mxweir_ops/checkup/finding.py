"""What a check is given, and what it found."""

from pathlib import Path
from typing import NamedTuple

from mxweir.config import Config

GOOD, NOTE, BAD = "good", "note", "bad"


class Host(NamedTuple):
    """The host at hand: its configuration, and the file that it is from."""

    config: Config
    file: Path


class Finding(NamedTuple):
    """One sentence about one thing; only what is BAD makes the exit status 1."""

    state: str
    subject: str
    what: str
