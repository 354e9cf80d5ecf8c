"""What Postfix is told about a message: header edits, a reply, or to hold it.

Whatever header of the family X-Spam-* came from outside is removed, all of its
instances: sorting rules on the far side act on any of them. Ours are added
after that, at the end of the header:

    X-Spam-Flag: YES
    X-Spam-Score: 7.2
    X-Spam-Status: Yes, score=7.2 required=5.0 tests=BAYES_99,HTML_MESSAGE
    X-Spam-Scanner: mxweir spamd

    X-Spam-Status: unscanned, reason=deadline       (and no other)

The subject is rewritten only where a policy says so: it breaks a DKIM signature.

Values that we make are ASCII and folded with LF and a tab: libmilter refuses
anything else with an exception, or corrupts it. A subject keeps what it had, as
long as that is UTF-8.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mxweir.reply import Reply
from mxweir_milter.policy import Ruling
from mxweir_milter.subject import tagged
from mxweir_milter.verdict import Outcome, Reason, Result, Scored, Thresholds

_FAMILY = b"x-spam-"
_NOT_PRINTABLE = re.compile(r"[^ -~]|%")
_LINE = 76
_MOST_STEPS = 250_000
_MOST_BYTES = 65_536


class Answer(NamedTuple):
    """What to do with a message.

    With a `reply` the message is refused and the rest is empty. Otherwise it is
    accepted: the fields in `remove` (name, instance counted from 1) are removed
    in this order, those in `change` (name, instance, new value) are changed where
    they stand, then those in `add` appended; with `hold`, a reason, Postfix keeps
    it in the hold queue.
    """

    reply: Reply | None = None
    remove: tuple[tuple[str, int], ...] = ()
    change: tuple[tuple[str, int, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    hold: str = ""


class Forged:
    """Counts the X-Spam-* fields of one message that came from outside.

    Postfix walks the header from its start for each field it removes. A message
    made for that purpose, with 5,000 such fields, kept it busy for 5 s: the
    steps are counted here, and from a tenth of a second's worth on there are
    `too_many`. An honest message has some dozens of fields and hundreds of steps.

    The names are remembered, and a name may have 60 KB: together they may have
    64 KiB, or a message could hold and have us answer as much as its whole size.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._position = 0
        self._steps = 0
        self._bytes = 0

    def see(self, name: bytes) -> None:
        """Look at one field's name; all must be shown, in their order."""
        self._position += 1
        if name[:1] in b"Xx" and name[: len(_FAMILY)].lower() == _FAMILY:
            self._steps += self._position
            self._bytes += len(name)
            if not self.too_many:
                known = name.decode("ascii", "replace").lower()
                self._counts[known] = self._counts.get(known, 0) + 1

    @property
    def too_many(self) -> bool:
        """Whether they cannot be removed in time, or take too much room."""
        return self._steps > _MOST_STEPS or self._bytes > _MOST_BYTES

    def removals(self) -> tuple[tuple[str, int], ...]:
        """Name and instance of each, the last instance first: a removal renumbers those after it."""
        return tuple((name, i) for name, count in self._counts.items() for i in range(count, 0, -1))


def too_many() -> Answer:
    """The answer for a message with more forged fields than can be removed."""
    return Answer(Reply("550", "5.6.0", "Message has too many X-Spam header fields"))


def answer(ruling: Ruling, result: Result, forged: Forged, subject: bytes | None, queue_id: str) -> Answer:
    """The answer for a message that was scanned, or should have been.

    `subject` is the value of its first Subject field, None if it has none.
    """
    if not isinstance(result, Scored):
        return _unscanned(ruling, result.reason, forged)
    treatment, score = ruling.treatment, number(result.score)
    if ruling.outcome is Outcome.REJECTED:
        where = f", id {printable(queue_id)}" if queue_id else ""
        limit = number(treatment.thresholds.reject_at)
        text = f"{treatment.reject_text} (score {score}, limit {limit}{where})"
        return Answer(Reply("550", "5.7.1", text))
    hold = f"mxweir: score {score}" if ruling.outcome is Outcome.QUARANTINED else ""
    value = tagged(subject or b"", treatment.subject_tag) if ruling.rewrites_subject else None
    change: tuple[tuple[str, int, str], ...] = ()
    add = tuple(_fields(result, treatment.thresholds))
    if value is not None and subject is None:
        add += (("Subject", value),)
    elif value is not None:
        change = (("Subject", 1, value),)
    return Answer(None, forged.removals(), change, add, hold)


def _unscanned(ruling: Ruling, reason: Reason, forged: Forged) -> Answer:
    if ruling.unscanned == "defer":
        return Answer(Reply("451", "4.7.1", "Message cannot be checked for spam now, try again later"))
    hold = f"mxweir: unscanned, {reason}" if ruling.unscanned == "quarantine" else ""
    return Answer(remove=forged.removals(), add=(unscanned_field(reason),), hold=hold)


def _fields(result: Scored, thresholds: Thresholds) -> Iterator[tuple[str, str]]:
    spam = result.score >= thresholds.tag_at
    score = number(result.score)
    status = f"{'Yes' if spam else 'No'}, score={score} required={number(thresholds.tag_at)}"
    yield "X-Spam-Flag", "YES" if spam else "NO"
    yield "X-Spam-Score", score
    yield "X-Spam-Status", status + _tests(result.symbols, len("X-Spam-Status: ") + len(status))
    yield "X-Spam-Scanner", f"mxweir {printable(result.engine)}"


def unscanned_field(reason: Reason) -> tuple[str, str]:
    """The one field that unscanned mail gets."""
    return "X-Spam-Status", f"unscanned, reason={reason}"


def _tests(symbols: tuple[str, ...], column: int) -> str:
    """` tests=A,B,C`, folded so that no line is longer than 76 characters, unless one symbol alone is."""
    text, separator = "", " tests="
    for symbol in symbols or ("none",):
        piece = separator + printable(symbol)
        if column + len(piece) + 1 > _LINE:
            # A fold may stand where white space may: before "tests=" or after a comma.
            head, tail = ("", piece.lstrip(" ")) if separator != "," else (",", piece[1:])
            text += f"{head}\n\t{tail}"
            column = 8 + len(tail)
        else:
            text += piece
            column += len(piece)
        separator = ","
    return text


def number(value: float) -> str:
    """A score as SpamAssassin writes it, with one decimal, and never `-0.0`."""
    return f"{round(value, 1) + 0.0:.1f}"


def printable(text: str) -> str:
    """Printable ASCII that may stand in a header and in a reply, at most 200 characters."""
    return _NOT_PRINTABLE.sub("?", text[:200])
