"""One message, the engines in their order, one deadline over all of them.

    as long as there is an engine that was not asked, and whose breaker lets us ask it
        the first of them that has a slot, or has one within a short time:  ask it;
            its answer is the result, its failure the next one's turn
        none of them has:  the last failure is the result

An engine that has others behind it gets a share of the time that is left, so
that they still have some; the last has all of it. The same holds for the
addresses of one engine. Waiting for a slot comes last, because a message must
not wait for one engine while another is idle.

Each failure counts in the breaker of its address, with two exceptions: faults of
our own, and a deadline that left the engine no fair chance, because others
before it had used up the time.
"""

from collections.abc import Callable, Sequence
from time import monotonic

from mxweir.breaker import Breaker, Change
from mxweir.breaker import Settings as BreakerSettings
from mxweir.config import Engine as EngineSettings
from mxweir.config import Milter
from mxweir.deadline import Deadline
from mxweir.events import Asked, Observer, Switched, Trouble
from mxweir_milter import engines
from mxweir_milter.alarms import Alarms
from mxweir_milter.engines import Engine
from mxweir_milter.engines.error import EngineError
from mxweir_milter.engines.names import Names
from mxweir_milter.message import Message
from mxweir_milter.pool import Gate, Lane, Pool, Turn
from mxweir_milter.sockets import Sockets
from mxweir_milter.verdict import Failed, Reason, Result

_SHARE = 0.6
"""Part of the time left that one gets while others wait behind it."""

_FAIR = 0.1
"""Part of all the time that is a fair chance."""

_LEAST = 0.01
"""Seconds below which there is no point in asking."""

SLOTS = {"spamd": 5, "rspamd": 100}
"""Scans at once at one address where the configuration does not say; found by trial, see docs/decisions."""


class Scanner:
    """Asks the engines; lives on whatever loop scans."""

    def __init__(
        self,
        pools: Sequence[Pool],
        observe: Observer,
        slot_wait: float = 0.5,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.pools = tuple(pools)
        self.names = Names()
        self.sockets = Sockets()
        self._alarms = Alarms()
        self._observe = observe
        self._slot_wait = slot_wait
        self._clock = clock

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All addresses of all engines."""
        return tuple(lane for pool in self.pools for lane in pool.lanes)

    async def scan(self, message: Message, deadline: Deadline) -> Result:
        """The first engine's result that is one; never raises but for being cancelled."""
        result: Result = Failed(Reason.BREAKER_OPEN if self.pools else Reason.NO_ENGINE)
        fair = deadline.left() * _FAIR
        left = list(self.pools)
        while left:
            turn = _free(left) or await self._wait(left, deadline)
            if not isinstance(turn, Turn):
                return result if turn is None or result.engine else turn
            left.remove(turn.pool)
            more = any(other.is_open() for other in left)
            result = await self._try(turn, message, deadline.share(_SHARE) if more else deadline, fair)
            if _answered(result) or deadline.left() <= _LEAST:
                break
        return result

    async def _wait(self, pools: Sequence[Pool], deadline: Deadline) -> Turn | Failed | None:
        """A slot as soon as there is one; why there is none; None where no breaker lets us ask."""
        busy = [pool for pool in pools if pool.is_open()]
        if not busy:
            return None
        first, *others = busy
        if turn := await first.wait(min(self._slot_wait, deadline.left()), *others):
            return turn
        if not any(pool.is_open() for pool in busy):
            return Failed(Reason.BREAKER_OPEN)
        names = ", ".join(dict.fromkeys(pool.name for pool in busy))
        self._observe(Trouble("no slot", f"{names}: none was free within {self._slot_wait:g} s"))
        return Failed(Reason.ENGINE_BUSY, first.name)

    async def _try(self, turn: Turn, message: Message, deadline: Deadline, fair: float) -> Result:
        """Ask an engine's addresses one after the other, until one answers."""
        pool, tried = turn.pool, [turn.lane]
        while True:
            last = len(tried) == len(pool.lanes) or not pool.has_room(tried)
            result = await self._ask(turn, message, deadline if last else deadline.share(_SHARE), fair)
            if last or _answered(result) or deadline.left() <= _LEAST:
                return result
            if (another := pool.take(tried)) is None:
                return result
            turn = another
            tried.append(turn.lane)

    async def _ask(self, turn: Turn, message: Message, deadline: Deadline, fair: float) -> Result:
        pool, lane, permit = turn
        breaker = lane.gate.breaker
        began, given = self._clock(), deadline.left()
        result: Result | None = None
        try:
            result = await self._answer(lane.engine, message, given)
        finally:
            now = self._clock()
            change = None
            if result is None or not _counts(result, given >= fair):
                breaker.forget(permit)
            else:
                change = breaker.record(permit, _answered(result), now - began, now)
            pool.give_back(turn)
        self._tell(lane, result, now - began, change)
        return result if isinstance(result, Failed) else result.after(now - began)

    async def _answer(self, engine: Engine, message: Message, seconds: float) -> Result:
        try:
            with self._alarms.limit(seconds):
                return await engine.scan(message)
        except TimeoutError:
            return Failed(Reason.DEADLINE, engine.name, f"no answer in {seconds:.3g} s")
        except EngineError as error:
            return Failed(error.reason, engine.name, str(error))
        except OSError as error:
            return Failed(Reason.UNREACHABLE, engine.name, error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 -- a fault in one engine's client is the next engine's turn
            return Failed(Reason.INTERNAL, engine.name, repr(error))

    def _tell(self, lane: Lane, result: Result, seconds: float, change: Change | None) -> None:
        place = str(lane.position), str(lane.address)
        reason = result.reason.value if isinstance(result, Failed) else "ok"
        self._observe(Asked(lane.engine.name, *place, reason, seconds))
        if isinstance(result, Failed) and not _answered(result):
            self._observe(Trouble(f"scan failed: {reason}", f"{lane.engine}: {result.detail}"))
        if change:
            switch = Switched(
                lane.engine.name, *place, str(lane.engine), change.state, change.why, change.seconds
            )
            self._observe(switch)


def build(milter: Milter, observe: Observer, former: Scanner | None = None) -> Scanner:
    """The scanner of a configuration; raises SettingError.

    Engines that were there before keep their breakers and what they have in hand.
    """
    known = {str(lane.engine): lane.gate for lane in former.lanes} if former else {}
    scanner = Scanner((), observe, milter.slot_wait)
    if former:
        scanner.names, scanner.sockets = former.names, former.sockets
    clients = [
        engines.build(settings, f"milter.engine[{position}]", scanner.names, scanner.sockets)
        for position, settings in enumerate(milter.engine, 1)
    ]
    # From here on nothing fails: what the former scanner shares is changed last.
    scanner.pools = tuple(
        Pool(
            [
                Lane(client, _gate(known.get(str(client)), milter, settings), place, number)
                for number, client in enumerate(addresses, 1)
            ]
        )
        for place, (settings, addresses) in enumerate(zip(milter.engine, clients, strict=True), 1)
    )
    return scanner


def _gate(former: Gate | None, milter: Milter, engine: EngineSettings) -> Gate:
    """The gate of an address: the one that it had, with the settings that hold now."""
    rules = milter.breaker
    slow_after = milter.deadline / 2 if rules.slow_after is None else rules.slow_after
    settings = BreakerSettings(
        rules.window, rules.min_calls, rules.failures, rules.slow, slow_after, rules.pause, rules.probes
    )
    gate = former or Gate(Breaker(settings, monotonic()), 0)
    gate.breaker.settings = settings
    gate.slots = engine.max_scans or SLOTS[engine.type]
    return gate


def _free(pools: Sequence[Pool]) -> Turn | None:
    """A slot of the first of them that has one now."""
    for pool in pools:
        if turn := pool.take():
            return turn
    return None


def _counts(result: Result, fair: bool) -> bool:
    """Whether a result says something about the engine."""
    if not isinstance(result, Failed):
        return True
    return result.reason is not Reason.INTERNAL and (fair or result.reason is not Reason.DEADLINE)


def _answered(result: Result) -> bool:
    """Whether the engine did what it is there for; to pass over a message is its good right."""
    return not isinstance(result, Failed) or result.reason is Reason.ENGINE_SKIPPED
