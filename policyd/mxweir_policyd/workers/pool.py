"""The workers together, as the daemon has them: hand out, replace, reload, drain, sum up."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import random
from time import monotonic
from typing import Any

from mxweir.background import Work, go_on
from mxweir.backoff import Backoff
from mxweir.config import Config
from mxweir.events import Event, Notice, Observer, Switched, Trouble, notice
from mxweir.log import LogObserver
from mxweir.metrics import Metrics
from mxweir.ratelimit.rate import Rate
from mxweir.service import ServiceError, SettingError
from mxweir.serving import Listening
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.workers.figures import Figuring
from mxweir_policyd.workers.member import Ears, Member, WorkerEndedError
from mxweir_policyd.workers.messages import MAPS, POLICY, Begin, Domains, Question, Take, Told
from mxweir_policyd.workers.placing import Placing

_GOOD = 60.0
"""Seconds that a worker must have lived to be replaced at once."""

_STALLED = 10
"""Ticks of silence after which the service counts as stalled."""

_HUNG = 15
"""Ticks of silence after which a worker is replaced: below the 30 s of the unit's watchdog."""

_STARTING = 60
"""Ticks that a worker may take until it serves."""

_ANSWER = 4.0
"""Seconds for a question of the command line, which waits 5."""

_TAKE = 60.0
"""Seconds for a new configuration."""

_SLACK = 1.0
"""Seconds more than the drain time that a worker may take to end."""

_SAME = 5.0
"""Seconds within which the same word of another worker is not told again."""


@dataclass(slots=True)
class _Seat:
    """The place of one worker, which is replaced when it ends."""

    first: asyncio.Future[None]
    """Done when the first worker serves, or could not start."""
    member: Member | None = None
    keeping: asyncio.Task[None] | None = None


class Workers:
    """Has Postfix answered by `config.policyd.workers` processes."""

    def __init__(
        self, config: Config, domains: RelayDomains, observe: Observer, log: LogObserver, metrics: Metrics
    ) -> None:
        self._config = config
        self._domains = domains
        self._observe = observe
        self._log = log
        self._seats: list[_Seat] = []
        self._placing = Placing(self._members, config.policyd.max_connections, observe)
        self._figuring = Figuring(self._members)
        self._lately: dict[str, float] = {}
        self._stopping = False
        metrics.others = self._figuring.read
        domains.changed = lambda _: self._tell_all(self._of_domains())

    # Starting

    async def start(self) -> None:
        """Start all, and wait until they serve; raises ServiceError when one cannot."""
        self._figuring.loop = loop = asyncio.get_running_loop()
        self._seats = [_Seat(loop.create_future()) for _ in range(self._config.policyd.workers)]
        for seat in self._seats:
            seat.keeping = loop.create_task(go_on(partial(self._keep, seat), self._observe))
        for seat in self._seats:
            await seat.first

    async def listen(self, listening: Listening) -> None:
        """Accept, and hand out what comes. Raises ServiceError in one line."""
        policyd = self._config.policyd
        place = self._placing.place
        listening.hand_on("policy", policyd.listen, partial(place, POLICY), self._observe)
        listening.hand_on("maps", policyd.maps, partial(place, MAPS), self._observe)

    def works(self) -> Iterator[Work]:
        """Nothing beside what `start` has begun."""
        return iter(())

    async def _keep(self, seat: _Seat) -> None:
        """Have a worker in this place for ever."""
        backoff = Backoff(first=0.5)
        while not self._told_to_stop():
            begun = monotonic()
            why = await self._live(seat)
            if self._told_to_stop() or seat.first.exception() is not None:
                return
            lived = monotonic() - begun
            wait = 0.0 if lived > _GOOD else backoff.failed(random())  # noqa: S311 - no secret
            if lived > _GOOD:
                backoff.succeeded()
            self._observe(
                Trouble("worker ended", f"{why} after {lived:.1f} s; another one in {wait:.1f} s", "error")
            )
            await asyncio.sleep(wait)

    async def _live(self, seat: _Seat) -> str:
        """The life of one worker; says how it ended."""
        try:
            member = await Member.start(Ears(self._log, self._told, partial(self._serves, seat)))
        except OSError as error:
            if not seat.first.done():
                seat.first.set_exception(ServiceError(f"a worker cannot be started: {error}"))
            return f"not started: {error}"
        seat.member = member
        member.tell(Begin(_shared_out(self._config), self._of_domains()))
        try:
            status = await member.ended()
        finally:
            seat.member = None
            self._figuring.retire(member)
            for kind, connection in member.untaken():
                self._placing.place(kind, connection)
        why = member.failed.why if member.failed else _ending(status)
        if not seat.first.done():
            failure = SettingError if member.failed and member.failed.status == 2 else ServiceError
            seat.first.set_exception(failure(why if member.failed else f"a worker ended with {why}"))
        return why

    def _serves(self, seat: _Seat) -> None:
        if not seat.first.done():
            seat.first.set_result(None)
        elif seat.member is not None:
            self._observe(notice("worker replaced", process=seat.member.pid))
        self._placing.place_waiting()

    def _members(self) -> list[Member]:
        return [seat.member for seat in self._seats if seat.member is not None]

    # While they run

    def tick(self) -> None:
        """Call it every second or so."""
        for member in self._members():
            member.silent += 1
            if member.silent == (_HUNG if member.serving else _STARTING):
                self._kill(member, f"has said nothing for {member.silent} s")
        self._placing.place_waiting()
        now = monotonic()
        self._lately = {word: until for word, until in self._lately.items() if until > now}

    def stalled(self) -> str:
        """Which worker's loop does not turn; "" if all do."""
        silent = [member for member in self._members() if member.serving and member.silent > _STALLED]
        return f"worker {silent[0].pid} has said nothing for {silent[0].silent} s" if silent else ""

    def not_ready(self) -> str:
        """Why nobody would answer."""
        return "" if any(member.serving for member in self._members()) else "no worker serves"

    async def answer(self, line: bytes) -> dict[str, Any]:
        """Have a worker answer a line that came in at the control socket; they all count in one place."""
        for member in sorted(self._members(), key=lambda member: member.silent):
            if member.serving:
                try:
                    answer: dict[str, Any] = await member.ask(Question(line), _ANSWER)
                except (TimeoutError, WorkerEndedError):
                    break
                return answer | {"domains": self._domains.describe()} if "domains" in answer else answer
        return {"error": "no worker answers"}

    async def take(self, config: Config) -> None:
        """Have all answer by a new configuration; one that does not take it in time is replaced."""
        self._config = config
        members = self._members()
        order = Take(_shared_out(config))
        taken = await asyncio.gather(
            *(member.ask(order, _TAKE) for member in members), return_exceptions=True
        )
        for member, result in zip(members, taken, strict=True):
            if isinstance(result, TimeoutError):
                self._kill(member, f"took no new configuration for {_TAKE:g} s")

    def _told_to_stop(self) -> bool:
        return self._stopping

    def _kill(self, member: Member, why: str) -> None:
        self._observe(Trouble("worker hung", f"process {member.pid} {why}; killed", "error"))
        member.kill()

    def _of_domains(self) -> Domains:
        return Domains(self._domains.pending, self._domains.hopeless)

    def _tell_all(self, order: Domains) -> None:
        for member in self._members():
            member.tell(order)

    def _told(self, told: Told) -> None:
        """What one worker says of itself, the others may say as well: that is told once."""
        event: Event = told.event
        if isinstance(event, Notice | Switched):
            word, now = repr(event), monotonic()
            if self._lately.get(word, 0.0) > now:
                return
            self._lately[word] = now + _SAME
        self._observe(event)

    # Stopping

    async def drain(self, seconds: float) -> None:
        """Have all drain, and wait until they have ended."""
        self._stopping = True
        self._placing.close()
        for seat in self._seats:
            if seat.member is not None and seat.member.serving:
                seat.member.release()
            elif seat.keeping is not None:
                seat.keeping.cancel()
        await asyncio.wait(self._keepings(), timeout=seconds + _SLACK)

    async def end(self, served: bool) -> None:
        """Kill what is left, and wait for it."""
        self._stopping = True
        for member in self._members() if served else ():
            self._kill(member, "did not end in its time")
        futures = [*self._keepings(), *(seat.first for seat in self._seats)]
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)

    def _keepings(self) -> list[asyncio.Task[None]]:
        return [seat.keeping for seat in self._seats if seat.keeping is not None]


def _shared_out(config: Config) -> Config:
    """The configuration of one worker: of what is bounded for the service, it has its share."""
    policyd, decisions = config.policyd, config.log.decisions
    share = Rate(max(1, decisions.count // policyd.workers), decisions.period)
    return replace(
        config,
        policyd=replace(policyd, max_keys=policyd.max_keys // policyd.workers),
        log=replace(config.log, decisions=share),
    )


def _ending(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}"
