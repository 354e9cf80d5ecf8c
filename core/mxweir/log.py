"""The observer that writes lines.

One line a decision, one line a trouble. What a client sends can never forge a
line or a field: whatever is not printable is escaped before a line is built.
What a stranger can repeat is bounded: decisions by a rate, troubles by being
summed up.
"""

import json
import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from mxweir.address import text_of
from mxweir.clock import Clock
from mxweir.config import Log
from mxweir.events import Decided, Handlers, Notice, Observed, Scanned, Trouble

_SUM_UP_AFTER = 60.0
"""Seconds during which the same trouble is counted instead of written."""

_PLAIN = re.compile(r"[A-Za-z0-9_@.:/<>\[\](),;+*#%&!?~^-]+")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LogObserver:
    """Writes events to a stream; `tick` must be called every second or so to write what was summed up."""

    def __init__(self, settings: Log, clock: Clock, daemon: str, stream: TextIO | None = None) -> None:
        self._clock = clock
        self._budget = settings.decisions.per_second
        self._spent = 0.0
        self._second = clock()
        self._unwritten = 0
        self._repeated: dict[str, tuple[float, int, str]] = {}
        self._level = _LEVELS[settings.level]
        self._logger = _logger(settings, daemon, stream or sys.stderr)

    def handlers(self) -> Handlers:
        """What is written: decisions and scans only where the level lets them through."""
        written: Handlers = {Trouble: self._trouble, Notice: self._notice}
        return (
            written
            if self._level > _LEVELS["info"]
            else {**written, Decided: self._decided, Scanned: self._scanned}
        )

    def tick(self) -> None:
        """Write the summaries that are due."""
        now = self._clock()
        if self._unwritten and now - self._second >= 1.0:
            self._logger.warning("decisions not written", count=self._unwritten, reason="log.decisions")
            self._unwritten = 0
        for what, (since, count, detail) in list(self._repeated.items()):
            if now - since >= _SUM_UP_AFTER:
                del self._repeated[what]
                if count:
                    self._logger.warning(what, repeated=count, seconds=round(now - since), last=detail)

    def close(self) -> None:
        """Write all that was summed up, at the end."""
        self._second = float("-inf")
        self._repeated = {
            what: (float("-inf"), n, detail) for what, (_, n, detail) in self._repeated.items() if n
        }
        for what, (_, count, detail) in self._repeated.items():
            self._logger.warning(what, repeated=count, last=detail)
        self._repeated.clear()

    def _may_write(self) -> bool:
        """Whether the rate of decision lines allows another one."""
        now = self._clock()
        if now - self._second >= 1.0:
            self.tick()
            self._second, self._spent = now, 0.0
        if self._spent >= self._budget:
            self._unwritten += 1
            return False
        self._spent += 1.0
        return True

    def _decided(self, event: Decided) -> None:
        if not self._may_write():
            return
        facts, decision, seconds = event
        fields: dict[str, object] = {
            "verdict": decision.verdict,
            "queue_id": text_of(facts.queue_id),
            "instance": text_of(facts.instance),
            "state": text_of(facts.state),
            "client": facts.client.address,
            "sender": facts.sender.given,
            "recipient": facts.recipient.given,
            "ms": round(seconds * 1000, 3),
        }
        if facts.sasl_username:
            fields["sasl_username"] = text_of(facts.sasl_username)
        if decision.check:
            fields |= {
                "check": decision.check,
                "rule": decision.rule,
                "key": decision.key,
                "used": decision.figure,
            }
            fields["action"] = decision.reply
        if decision.observed:
            fields["observed"] = _observed(decision.observed)
        self._logger.info("decision", **fields)

    def _scanned(self, event: Scanned) -> None:
        if not self._may_write():
            return
        fields: dict[str, object] = event._asdict()
        fields["ms"] = round(event.seconds * 1000, 1)
        fields["symbols"] = ",".join(event.symbols)
        del fields["seconds"]
        self._logger.info(
            "scan", **{name: value for name, value in fields.items() if value not in ("", None)}
        )

    def _notice(self, event: Notice) -> None:
        self._logger.info(event.what, **event.fields)

    def _trouble(self, event: Trouble) -> None:
        now = self._clock()
        since, count, _ = self._repeated.get(event.what, (None, 0, ""))
        if since is not None and now - since < _SUM_UP_AFTER:
            self._repeated[event.what] = (since, count + 1, event.detail)
            return
        self.tick()
        self._repeated[event.what] = (now, 0, event.detail)
        write = self._logger.error if event.level == "error" else self._logger.warning
        write(event.what, detail=event.detail)


def printable(value: object) -> object:
    """Escape whatever could end a line, move a cursor or change the direction of text; shorten what is very long."""
    if not isinstance(value, str):
        return value
    if not value.isprintable():
        value = "".join(
            c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in value
        )
    return value if len(value) <= 1000 else value[:1000] + "…"


def logfmt(fields: Mapping[str, object]) -> str:
    """`name=value` with quotes where a value needs them."""
    return " ".join([f"{name}={_logfmt_value(value)}" for name, value in fields.items()])


def _logfmt_value(value: object) -> str:
    text = str(printable(value if not isinstance(value, list | dict) else json.dumps(value)))
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _observed(observed: tuple[Observed, ...]) -> str:
    return "; ".join(f"{o.rule} {o.key} {o.figure}" for o in observed)


def _logger(settings: Log, daemon: str, stream: TextIO) -> Any:
    """A structlog logger of its own, so that nothing is configured for the whole process."""

    def stamp(_: object, level: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6]
        return {"time": f"{time}Z", "level": level, "daemon": daemon, "event": fields.pop("event"), **fields}

    def as_logfmt(_: object, __: str, fields: Mapping[str, Any]) -> str:
        return logfmt(fields)

    def as_json(_: object, __: str, fields: Mapping[str, Any]) -> str:
        return json.dumps({name: printable(value) for name, value in fields.items()}, default=str)

    return structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[stamp, as_json if settings.format == "json" else as_logfmt],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=True,
    )


def notice(what: str, /, **fields: object) -> Notice:
    """A Notice, with its fields as keywords."""
    return Notice(what, fields)
