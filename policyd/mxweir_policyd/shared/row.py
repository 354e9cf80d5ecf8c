"""Questions that Redis is asked about together, and the express lane that gathers them.

The same as `express`, for limits that are counted in Redis: what nothing objects
to before the limits, and what takes part in all of them at their usual pace, is
put into a row in one loop, and the row is sent as one call. For one limit by
sender, what follows the checks reads:

    if not instance:
        return
    key0 = sender.address
    if not key0:
        return
    if refused and (key0 in young0 or key0 in old0):
        return
    named = (prefix0 + key0.encode(), )
    told = (instance, state, recipient.given.encode())
    arguments += (mark(told), )
    names += named
    keys += (key0, )
    asked.append(request)
    owed.append(owing := Owed())
    reply(owing)
"""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from mxweir.access import AccessList
from mxweir.facts import Folder
from mxweir.ratelimit.shapes import Counter, Shape, mark
from mxweir.ratelimit.shared import Shared
from mxweir_policyd.deferred import Owed
from mxweir_policyd.express import ATTRIBUTES, Express, checks, compiled, key_lines, names_of_checks, place
from mxweir_policyd.protocol import Attributes

if TYPE_CHECKING:
    from mxweir_policyd.pipeline import Domains


class Row:
    """Questions of one shape: what Redis is told of them, and the answers that are owed for them."""

    __slots__ = (
        "answered_in",
        "arguments",
        "asked",
        "identities",
        "keys",
        "names",
        "owed",
        "shape",
        "since",
        "under_way",
    )

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.since = 0.0
        """When the first of them came, in seconds."""
        self.under_way = 0
        """Calls about questions that were in this row before, and are not answered."""
        self.answered_in = 0.0
        """How long the last of those took that are, in seconds."""
        self._clear()

    def _clear(self) -> None:
        self.asked: list[Attributes] = []
        self.identities: list[int] = []
        """By which each is known again once it has passed."""
        self.owed: list[Owed] = []
        self.keys: list[str] = []
        """As the limits have them, so many for each question."""
        self.names: list[bytes] = []
        """KEYS, so many for each question."""
        self.arguments: list[bytes] = []
        """Their part of ARGV, so many for each question."""

    def take(self) -> "Sequence[Row]":
        """All questions, in rows of as many as one call can take; this row is empty then."""
        whole = Row(self.shape)
        whole.since, whole.asked, whole.identities = self.since, self.asked, self.identities
        whole.owed, whole.keys = self.owed, self.keys
        whole.names, whole.arguments = self.names, self.arguments
        self._clear()
        questions, most = len(whole.asked), self.shape.most
        if questions <= most:
            return (whole,) if questions else ()
        return [whole.part(first, first + most) for first in range(0, questions, most)]

    def without(self, numbers: Container[int]) -> "Row":
        """The questions but for those of these numbers; for what is done when Redis has spoken."""
        rest = Row(self.shape)
        for number, (asked, owed, identity) in enumerate(
            zip(self.asked, self.owed, self.identities, strict=True)
        ):
            if number not in numbers:
                rest.asked.append(asked)
                rest.owed.append(owed)
                rest.identities.append(identity)
        return rest

    def part(self, first: int, end: int) -> "Row":
        """Those of them from `first` on, before `end`."""
        part = Row(self.shape)
        part.since = self.since
        part.asked, part.owed = self.asked[first:end], self.owed[first:end]
        part.identities = self.identities[first:end]
        names, arguments = len(self.names) // len(self.asked), len(self.arguments) // len(self.asked)
        part.keys = self.keys[first * len(self.shape.counters) : end * len(self.shape.counters)]
        part.names = self.names[first * names : end * names]
        part.arguments = self.arguments[first * arguments : end * arguments]
        return part


def row_of(shared: Shared) -> Row:
    """An empty row for the questions that most are: recipients that can be told again, in all limits."""
    limits = shared.limits.asked_at(b"RCPT", b"")
    counters = tuple(shared.shapes.counter(limit, limit.paces.usual) for limit in limits)
    return Row(shared.shapes.shape(counters, repeats=True))


def write_row_express(
    folder: Folder, access: AccessList, domains: "Domains", shared: Shared, row: Row
) -> Express:
    """The express lane that puts questions into a row."""
    names = names_of_checks(folder, access, domains, shared.limits)
    names |= {"row": row, "Owed": Owed, "mark": mark}
    begin, refusals = [*_BEGIN], []
    each = [f"{ATTRIBUTES} = request", *checks(access), *_TOLD_AGAIN]
    for i, counter in enumerate(row.shape.counters):
        names |= {
            f"prefix{i}": counter.prefix,
            f"own{i}": counter.limit.paces.own,
            f"refusals{i}": shared.refusals[counter.limit.name],
        }
        begin.append(f"young{i}, old{i} = refusals{i}.young, refusals{i}.old")
        refusals += [f"young{i}", f"old{i}"]
        each += _key(i, counter)
    # Most of the time there are none, and no key need be looked for.
    begin.append(f"refused = {' or '.join(refusals)}")
    known = [f"key{i} in {where}{i}" for i in range(len(row.shape.counters)) for where in ("young", "old")]
    each += [f"if refused and ({' or '.join(known)}):", "    return"]
    return compiled(begin, [*each, *_gather(row.shape)], names, "request")


_BEGIN = (
    "reply = replies.append",
    "asked, identities, owed = row.asked, row.identities, row.owed",
    "keys, names, arguments = row.keys, row.names, row.arguments",
    "lately, before = repeats.young, repeats.old",
)
_TOLD_AGAIN = (
    "if not instance:",
    "    return",
)


def _key(i: int, counter: Counter) -> list[str]:
    lines, unknown = key_lines(i, counter.limit)
    if counter.limit.paces.own:
        unknown.append(f"key{i} in own{i}")
    return [*lines, f"if {' or '.join(unknown)}:", "    return"]


def _gather(shape: Shape) -> list[str]:
    named = "".join(f"prefix{i} + key{i}.encode(), " for i in range(len(shape.counters)))
    told = [counter.limit.rule.distinct for counter in shape.counters if counter.takes_argument]
    brought = "".join(f"{place(name)}.encode(), " for name in told)
    return [
        # Where a text is no UTF-8, the lane ends here, before anything of its question is put down.
        f"named = ({named})",
        "told = (instance, state, recipient.given.encode())",
        f"arguments += (mark(told), {brought})",
        "names += named",
        f"keys += ({''.join(f'key{i}, ' for i in range(len(shape.counters)))})",
        "identities.append(identity)",
        "asked.append(request)",
        "owed.append(owing := Owed())",
        "reply(owing)",
    ]
