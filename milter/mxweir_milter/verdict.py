"""A scanner's result → what becomes of the message.

    score at least   reject_at      rejected      550, the sender hears why
                     quarantine_at  quarantined   marked, and held in Postfix's queue
                     tag_at         tagged        marked
    below all of them               ham           marked
    no score                        unscanned     marked with the reason

A scanner's answer without a finite score is no score: Rspamd answers 200 and 0
to an empty body, and `nan` would be below every threshold.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """What became of a message."""

    HAM = "ham"
    TAGGED = "tagged"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    UNSCANNED = "unscanned"
    SKIPPED = "skipped"
    LIMITED = "limited"


class Reason(StrEnum):
    """Why a message was not scanned; headers, log and metrics use the same words."""

    NO_ENGINE = "no engine"
    TOO_LARGE = "too large"
    NO_ROOM = "no room"
    DEADLINE = "deadline"
    UNREACHABLE = "engine unreachable"
    BROKE_OFF = "engine broke off"
    BAD_ANSWER = "bad answer"
    BREAKER_OPEN = "breaker open"
    ENGINE_BUSY = "engine busy"
    ENGINE_SKIPPED = "skipped by engine"
    INTERNAL = "internal error"
    UNHEARD = "answer not heard"

    @property
    def passes(self) -> bool:
        """Whether such mail passes even where `unscanned` says defer or quarantine.

        The same message would fail the same way at each retry, until its sender
        gets it back days later: deferring it is losing it.
        """
        return self in (Reason.NO_ENGINE, Reason.TOO_LARGE, Reason.ENGINE_SKIPPED, Reason.INTERNAL)


NEVER = math.inf
"""A threshold that no score reaches."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores from which a message is tagged, quarantined, rejected, its subject rewritten."""

    tag_at: float = 5.0
    quarantine_at: float = NEVER
    reject_at: float = NEVER
    rewrite_subject_at: float = NEVER


@dataclass(slots=True)
class Scored:
    """An engine's result; `threshold` is the engine's own. Made by `scored`, which checks it.

    `action` is what Rspamd itself would do; SpamAssassin has no such word.
    `seconds` is the time that the engine took.
    """

    score: float
    threshold: float
    symbols: tuple[str, ...]
    engine: str
    action: str = ""
    seconds: float = field(default=0.0, compare=False)

    def after(self, seconds: float) -> "Scored":
        """The same, which took so many seconds."""
        return Scored(self.score, self.threshold, self.symbols, self.engine, self.action, seconds)


class Failed(NamedTuple):
    """No result; `detail` is for the log."""

    reason: Reason
    engine: str = ""
    detail: str = ""


Result = Scored | Failed

_SYMBOL = re.compile(r"[A-Za-z0-9_.+-]{1,80}")
_MOST_SYMBOLS = 200
_LARGEST_SCORE = 1e6


def scored(score: float, threshold: float, symbols: Iterable[str], engine: str, action: str = "") -> Scored:
    """A checked result; ValueError where it cannot be relied on.

    Symbols that are no plain names are left out, and so are those after the
    200th: they end up in a header.
    """
    for number in (score, threshold):
        if not math.isfinite(number) or abs(number) > _LARGEST_SCORE:
            raise ValueError(f"{number} is no usable score")
    plain = [symbol for symbol in symbols if _SYMBOL.fullmatch(symbol)]
    return Scored(score, threshold, tuple(plain[:_MOST_SYMBOLS]), engine, action)


def judge(result: Result, thresholds: Thresholds) -> Outcome:
    """What becomes of a message with this result."""
    if isinstance(result, Failed):
        return Outcome.UNSCANNED
    if result.score >= thresholds.reject_at:
        return Outcome.REJECTED
    if result.score >= thresholds.quarantine_at:
        return Outcome.QUARANTINED
    return Outcome.TAGGED if result.score >= thresholds.tag_at else Outcome.HAM
