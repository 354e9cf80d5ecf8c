"""What happened, as frozen records.

The daemons state facts; what becomes of them is up to the observers, of which
there are two: `mxweir.log` writes lines, `mxweir.metrics` counts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from mxweir.facts import Facts


class Observed(NamedTuple):
    """A limit in observe mode that would have refused."""

    rule: str
    key: str
    figure: str


class Decision(NamedTuple):
    """The answer to one policy question.

    `verdict` is pass, reject or defer; `reply` what Postfix is told; `check` and
    `rule` name what decided (empty for a plain pass), `key` the folded value it
    decided by, `figure` how much is used of how much ("200/200").
    """

    verdict: str
    reply: str
    check: str = ""
    rule: str = ""
    key: str = ""
    figure: str = ""
    observed: tuple[Observed, ...] = ()


PASS = Decision("pass", "DUNNO")
"""What nothing objects to."""


class Decided(NamedTuple):
    """One policy question was answered, `seconds` after its last byte."""

    facts: Facts
    decision: Decision
    seconds: float


class Passed(NamedTuple):
    """So many policy questions passed with nothing to say about them, all answered within `seconds`.

    `facts` has those of each, for an observer that tells them one by one.
    """

    questions: int
    seconds: float
    facts: Sequence[Facts] = ()


class Scanned(NamedTuple):
    """One message went through the milter.

    `outcome` is ham, tagged, quarantined, rejected, unscanned, skipped or limited;
    `reason` says why it was not scanned; `score` and `threshold` are None
    then; `size` is in bytes; `action` is the refusal or the reason to hold it,
    empty where the message was simply accepted. `policy` names the one that
    decided, `overruled` those of other recipients that would have done more.
    `engine_action` is what Rspamd itself would do, `engine_seconds` how much of the
    `seconds` was the engine's that gave the score. `limit`, `key` and `used` tell which
    limit by content refused it, `observed` those that would have.
    """

    queue_id: str
    client: str
    sender: str
    recipients: int
    outcome: str
    engine: str
    score: float | None
    threshold: float | None
    symbols: tuple[str, ...]
    reason: str
    seconds: float
    size: int
    action: str = ""
    policy: str = ""
    overruled: str = ""
    engine_action: str = ""
    engine_seconds: float = 0.0
    limit: str = ""
    key: str = ""
    used: str = ""
    observed: tuple[Observed, ...] = ()


class Asked(NamedTuple):
    """One engine was asked about one message.

    `position` is the engine's in the configuration, `address` that of the address
    in its list, both counted from "1"; `result` is "ok" or a reason, such as
    `Scanned.reason` has; `seconds` is the time it took.
    """

    engine: str
    position: str
    address: str
    result: str
    seconds: float


class Switched(NamedTuple):
    """The breaker of one address of an engine has opened, or closed.

    `engine`, `position` and `address` as in `Asked`; `at` is the address itself,
    `state` is open or closed; it was in the former one for `seconds`.
    """

    engine: str
    position: str
    address: str
    at: str
    state: str
    why: str
    seconds: float


class Counted(NamedTuple):
    """So many questions took part in limits that are counted in Redis.

    `by` says who answered: "redis", or "refusals", which it gave a moment before, or
    "process", the limits of this process, because it did not.
    """

    by: str
    questions: int


class Unanswered(NamedTuple):
    """A call to Redis had no reply; `kind` is that of mxweir.redis.errors."""

    kind: str


class Trouble(NamedTuple):
    """Something went wrong that nobody was refused for.

    `what` comes from a closed set in the code (it is a metric label and the key
    by which repetitions are summed up); `detail` may hold anything. `times` is more
    than 1 where another process has summed some up already: `detail` is of the last.
    """

    what: str
    detail: str
    level: str = "warning"
    times: int = 1


class Notice(NamedTuple):
    """Something an operator wants to read: started, reloaded, a line of a file skipped."""

    what: str
    fields: Mapping[str, object]
    level: str = "info"


def notice(what: str, /, **fields: object) -> Notice:
    """A Notice of level info."""
    return Notice(what, fields)


def warning(what: str, /, **fields: object) -> Notice:
    """A Notice of level warning."""
    return Notice(what, fields, "warning")


Event = Decided | Passed | Counted | Unanswered | Scanned | Asked | Switched | Trouble | Notice
Observer = Callable[[Event], None]
Handlers = Mapping[type, Callable[[Any], None]]
"""What an observer does with which kind of event; kinds that it lacks, it is not told."""


def tell_all(*observers: Handlers) -> Observer:
    """One observer that tells each of the others what it wants to know."""
    told = {kind: tuple(h[kind] for h in observers if kind in h) for kind in get_args(Event)}

    def tell(event: Event) -> None:
        for handle in told[type(event)]:
            handle(event)

    return tell
