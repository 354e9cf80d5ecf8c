"""Counters of this host alone: asked of the running daemons, or shown as the last ones saved them."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mxweir.clock import system_clock
from mxweir.config import Config
from mxweir.facts import Folder
from mxweir.ratelimit import snapshot
from mxweir.ratelimit.control import LimitsControl
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.lookup import Use, places_of
from mxweir.service import ServiceError
from mxweir_milter import counting
from mxweir_ops.daemon import NAMES, ask_daemon
from mxweir_policyd import worker


class Shown(NamedTuple):
    """Counters, what was passed over, and where they were found; `missed`: not all could be reset."""

    uses: list[Use]
    passed_over: list[str]
    source: str
    missed: bool = False


class InProcess:
    """The counters of this host alone: the policy daemon's, and the milter's of the limits by content."""

    def __init__(self, config: Config, name: str, folder: Folder) -> None:
        rules = [rule for rule in config.limit if name in ("", rule.name)]
        self._order = {rule.name: place for place, rule in enumerate(rules)}
        envelope = [rule for rule in rules if not rule.by_content]
        content = [rule for rule in rules if rule.by_content]
        places = worker.snapshot_path(config.state_dir), counting.snapshot_path(config.state_dir)
        self._parts = [
            _Part(config, daemon, name, Limits(counted, folder), folder, saved)
            for daemon, counted, saved in zip(("policyd", "milter"), (envelope, content), places, strict=True)
            if counted
        ]

    def show(self, key: str, *, reset: bool = False) -> Shown:
        """As of those in Redis; raises ServiceError where no daemon answers that could reset the key."""
        told = [part.reset(key) if reset else part.ask({"show": key}) for part in self._parts]
        uses = self._uses(told)
        missed = [line for one in told for line in one.missed]
        if missed and not uses:
            raise ServiceError("; ".join(missed))
        passed_over = [line for one in told for line in one.answer["passed_over"]]
        return Shown(uses, [*passed_over, *missed], _sources(told), bool(missed))

    def top(self, most: int) -> tuple[list[Use], str]:
        """Who uses most of each limit now, exactly."""
        told = [part.ask({"top": most}) for part in self._parts]
        return self._uses(told), _sources(told)

    def _uses(self, told: Sequence["_Told"]) -> list[Use]:
        """In the limits' order, whoever counts them."""
        uses = [Use(**each) for one in told for each in one.answer["uses"]]
        return sorted(uses, key=lambda used: self._order.get(used.limit, len(self._order)))


class _Told(NamedTuple):
    """What one daemon says of its counters, where that comes from, and what could not be done."""

    answer: Mapping[str, Any]
    source: str
    missed: Sequence[str] = ()


def _sources(told: Sequence[_Told]) -> str:
    return "; ".join(one.source for one in told) or "there are no limits"


class _Part:
    """The counters of one daemon; where none answers, those that it saved last."""

    def __init__(
        self, config: Config, daemon: str, name: str, limits: Limits, folder: Folder, saved: Path
    ) -> None:
        self._config = config
        self._daemon = daemon
        self._name = name
        self._limits = limits
        self._folder = folder
        self._saved = saved
        self._nobody = f"no {NAMES[daemon]} answers"

    def ask(self, question: Mapping[str, Any]) -> _Told:
        question = {**question, "limit": self._name}
        return self._ask_daemon(question) or self._look_up(question)

    def reset(self, key: str) -> _Told:
        if told := self._ask_daemon({"reset": key, "limit": self._name}):
            return told
        found, passed_over = places_of(self._limits.limits, key, self._folder)
        missed = [f"{place.limit.name}: not reset, for {self._nobody}" for place in found]
        return _Told({"uses": [], "passed_over": passed_over}, self._nobody, missed)

    def _ask_daemon(self, question: Mapping[str, Any]) -> _Told | None:
        answer = ask_daemon(self._config, {"limits": question}, self._daemon)
        return None if answer is None else _Told(answer, f"the running {NAMES[self._daemon]}")

    def _look_up(self, question: Mapping[str, Any]) -> _Told:
        try:
            snapshot.read(self._saved, self._limits, system_clock()())
            source = f"{self._nobody}: the counters that it saved last"
        except (snapshot.SnapshotError, OSError):
            source = f"{self._nobody}, and no counters were saved"
        control = LimitsControl(lambda: (self._limits, self._folder), system_clock())
        return _Told(asyncio.run(control.answer(question)), source)
