"""The observer that writes lines.

One line a decision, one line a trouble. What a client sends can never forge a
line or a field: whatever is not printable is escaped before a line is built.
What a stranger can repeat is bounded: decisions by a rate, troubles by being
summed up.
"""

import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog

from mxweir.address import text_of
from mxweir.clock import Clock
from mxweir.config import Log
from mxweir.events import (
    PASS,
    Decided,
    Decision,
    Handlers,
    Notice,
    Observed,
    Passed,
    Scanned,
    Switched,
    Trouble,
)
from mxweir.facts import Facts
from mxweir.logline import jsonline, logfmt, row
from mxweir.outlet import Later, Outlet

_SUM_UP_AFTER = 60.0
"""Seconds during which the same trouble is counted instead of written."""

_DECISION = (
    *("time", "level", "daemon", "event", "verdict", "queue_id", "instance", "state", "context"),
    *("client", "sender", "recipient", "check", "rule", "key", "action", "ms"),
)
"""The fields of every decision's line, in order."""

_SCAN = (
    *("time", "level", "daemon", "event", "queue_id", "client", "sender", "recipients", "outcome", "engine"),
    *("score", "threshold", "symbols", "size", "policy", "ms", "engine_ms"),
)
"""Those of a scan's line that has a score to tell, and nothing else."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LogObserver:
    """Writes events to a stream.

    `tick` must be called every second or so, to write what was summed up. With
    `later`, lines are collected until it calls back. Where `sums_up` is False, another
    process says how many decisions were not written: it is handed that number.
    """

    def __init__(
        self,
        settings: Log,
        clock: Clock,
        daemon: str,
        stream: TextIO | None = None,
        later: Later | None = None,
        *,
        sums_up: bool = True,
    ) -> None:
        self._sums_up = sums_up
        self._clock = clock
        self._budget = settings.decisions.count
        self._period = settings.decisions.period
        self._spent = 0
        self._since = self._told = clock()
        self._unwritten = 0
        self._repeated: dict[str, tuple[float, int, str]] = {}
        self._level = _LEVELS[settings.level]
        self._lines = Outlet(stream or sys.stderr, later)
        self._daemon = daemon
        self._now = _Now()
        self._render = jsonline if settings.format == "json" else logfmt
        self._decision = row(_DECISION, self._render)
        self._scan = row(_SCAN, self._render)
        self._logger = _logger(settings, self._stamp, self._render, self._lines)

    def handlers(self) -> Handlers:
        """What is written: decisions and scans only where the level lets them through."""
        written: Handlers = {
            Trouble: self._trouble,
            Notice: self._notice,
            Switched: self._switched,
        }
        return (
            written
            if self._level > _LEVELS["info"]
            else {**written, Decided: self._decided, Passed: self._passed, Scanned: self._scanned}
        )

    def pass_on(self, lines: str) -> None:
        """Write whole lines that another process of the daemon has made."""
        for line in lines.splitlines(keepends=True):
            self._lines.write(line)
        self._lines.flush()

    def take_unwritten(self) -> int:
        """How many decisions were not written since this was last asked; somebody else will tell."""
        count, self._unwritten = self._unwritten, 0
        return count

    def add_unwritten(self, count: int) -> None:
        """Another process of the daemon did not write so many decisions."""
        self._unwritten += count

    def tick(self) -> None:
        """Write the summaries that are due."""
        now = self._clock()
        self._lines.write_out()
        if self._lines.lost:
            lost, self._lines.lost = self._lines.lost, 0
            self._logger.warning(
                "log lines lost", count=lost, reason="whoever reads the log does not keep up"
            )
        if self._sums_up and self._unwritten and now - self._told >= min(self._period, _SUM_UP_AFTER):
            self._logger.warning("decisions not written", count=self._unwritten, reason="log.decisions")
            self._unwritten, self._told = 0, now
        for what, (since, count, detail) in list(self._repeated.items()):
            if now - since >= _SUM_UP_AFTER:
                del self._repeated[what]
                if count:
                    self._logger.warning(what, repeated=count, seconds=round(now - since), last=detail)

    def close(self) -> None:
        """Write all that was summed up, at the end."""
        now = self._clock()
        repeated, self._repeated = self._repeated, {}
        for what, (since, count, detail) in repeated.items():
            if count:
                self._logger.warning(what, repeated=count, seconds=round(now - since), last=detail)
        self._told = float("-inf")
        self.tick()
        self._lines.write_out()

    def _stamp(self, _: object, level: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Put time, level and daemon in front."""
        head = {
            "time": self._now.text(),
            "level": level,
            "daemon": self._daemon,
            "event": fields.pop("event"),
        }
        return {**head, **fields}

    def _may_write(self) -> bool:
        """Whether the rate of decision lines allows another one."""
        now = self._clock()
        if now - self._since >= self._period:
            self.tick()
            self._since, self._spent = now, 0
        if self._spent >= self._budget:
            self._unwritten += 1
            return False
        self._spent += 1
        return True

    def _passed(self, event: Passed) -> None:
        now, milliseconds = self._now.text(), f"{event.seconds * 1000:.3f}"
        for facts in event.facts:
            self._write_decision(facts, PASS, now, milliseconds)

    def _decided(self, event: Decided) -> None:
        self._write_decision(event.facts, event.decision, self._now.text(), f"{event.seconds * 1000:.3f}")

    def _write_decision(self, facts: Facts, decision: Decision, now: str, milliseconds: str) -> None:
        """The line that the logger would make, without its general way: there is one for every question."""
        if not self._may_write():
            return
        verdict, reply, check, rule, key, figure, observed = decision
        values = (
            now,
            "info",
            self._daemon,
            "decision",
            verdict,
            text_of(facts.queue_id),
            text_of(facts.instance),
            text_of(facts.state),
            text_of(facts.context),
            facts.client.address,
            facts.sender.given,
            facts.recipient.given,
            check,
            rule,
            key,
            reply,
            milliseconds,
        )
        if facts.sasl_username or figure or observed:
            more = {
                "sasl_username": text_of(facts.sasl_username),
                "used": figure,
                "observed": _observed(observed),
            }
            fields = dict(zip(_DECISION, values, strict=True))
            line = self._render(fields | {name: value for name, value in more.items() if value})
        else:
            line = self._decision(values)
        self._lines.write(f"{line}\n")
        self._lines.flush()

    def _scanned(self, event: Scanned) -> None:
        """As with decisions: the line that the logger would make, without its general way."""
        if not self._may_write():
            return
        self._lines.write(f"{self._scan(values) if (values := self._usual(event)) else self._any(event)}\n")
        self._lines.flush()

    def _usual(self, event: Scanned) -> tuple[object, ...] | None:
        """What most lines tell, for `_SCAN`; None where there is more to tell, or less."""
        more = event.reason or event.action or event.overruled or event.engine_action or event.limit
        engine_ms = round(event.engine_seconds * 1000, 1)
        all_there = event.queue_id and event.client and event.symbols and event.policy and engine_ms
        if more or event.observed or not all_there or event.score is None or event.threshold is None:
            return None
        return (
            *(self._now.text(), "info", self._daemon, "scan"),
            *(event.queue_id, event.client, event.sender, event.recipients, event.outcome, event.engine),
            *(event.score, event.threshold, ",".join(event.symbols), event.size, event.policy),
            *(round(event.seconds * 1000, 1), engine_ms),
        )

    def _any(self, event: Scanned) -> str:
        fields: dict[str, object] = event._asdict()
        fields["ms"] = round(event.seconds * 1000, 1)
        fields["engine_ms"] = round(event.engine_seconds * 1000, 1) or None
        fields["symbols"] = ",".join(event.symbols)
        fields["observed"] = _observed(event.observed)
        del fields["seconds"], fields["engine_seconds"]
        told = {name: value for name, value in fields.items() if name == "sender" or value not in ("", None)}
        head = {"time": self._now.text(), "level": "info", "daemon": self._daemon, "event": "scan"}
        return self._render(head | told)

    def _switched(self, event: Switched) -> None:
        if event.state == "open":
            self._logger.warning("breaker opened", engine=event.at, why=event.why)
        else:
            self._logger.info("breaker closed", engine=event.at, after=round(event.seconds))

    def _notice(self, event: Notice) -> None:
        write = self._logger.warning if event.level == "warning" else self._logger.info
        write(event.what, **event.fields)

    def _trouble(self, event: Trouble) -> None:
        now = self._clock()
        since, count, _ = self._repeated.get(event.what, (None, 0, ""))
        if since is not None and now - since < _SUM_UP_AFTER:
            self._repeated[event.what] = (since, count + event.times, event.detail)
            return
        self.tick()
        self._repeated[event.what] = (now, event.times - 1, event.detail)
        write = self._logger.error if event.level == "error" else self._logger.warning
        write(event.what, detail=event.detail)


def _observed(observed: tuple[Observed, ...]) -> str:
    return "; ".join(f"{o.rule} {o.key} {o.figure}" for o in observed)


class _Now:
    """The time as a text; what is the same for a second, or for a millisecond, is made once."""

    def __init__(self) -> None:
        self._millisecond = self._second = -1
        self._upto = self._text = ""

    def text(self) -> str:
        """UTC, to the millisecond (RFC 3339)."""
        millisecond = int(time.time() * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, part = divmod(millisecond, 1000)
            if second != self._second:
                self._second = second
                self._upto = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._text = f"{self._upto}.{part:03d}Z"
        return self._text


def _logger(settings: Log, stamp: Any, render: Callable[[Mapping[str, object]], str], lines: Outlet) -> Any:
    """A structlog logger of its own, so that nothing is configured for the whole process."""
    return structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", lines)),
        processors=[stamp, lambda _, __, fields: render(fields)],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    ).bind()
