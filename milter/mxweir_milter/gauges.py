"""What a scrape is told about the engines: the state of each address's breaker, its slots, and who waits.

Labels are the engine's type and two numbers, its position in the configuration
and that of the address in its list: an address itself is free text.
"""

from collections.abc import Callable, Iterator

from mxweir.breaker import State
from mxweir.metrics import Metrics
from mxweir_milter.pool import Lane
from mxweir_milter.scanner import Scanner

_STATES = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}

_Shown = Iterator[tuple[tuple[str, ...], float]]


def add(metrics: Metrics, scanner: Callable[[], Scanner]) -> None:
    """Add the gauges; `scanner` gives the one in force, which a reload replaces."""

    def of_lanes(read: Callable[[Lane], float]) -> Callable[[], _Shown]:
        return lambda: (
            ((lane.engine.name, str(lane.position), str(lane.address)), read(lane))
            for lane in scanner().lanes
        )

    def waiting() -> _Shown:
        for position, pool in enumerate(scanner().pools, 1):
            yield (pool.name, str(position)), float(pool.waiting)

    labels = ["engine", "position", "address"]
    state = of_lanes(lambda lane: _STATES[lane.gate.breaker.state])
    metrics.gauge("mxweir_milter_engine_breaker", "0 closed, 1 half-open, 2 open.", labels, state)
    in_hand = of_lanes(lambda lane: lane.gate.in_hand)
    metrics.gauge("mxweir_milter_engine_scans", "Scans under way at an address.", labels, in_hand)
    slots = of_lanes(lambda lane: lane.gate.slots)
    metrics.gauge("mxweir_milter_engine_slots", "Scans that an address may have under way.", labels, slots)
    text = "Messages that wait for a slot."
    metrics.gauge("mxweir_milter_engine_waiting", text, ["engine", "position"], waiting)
