"""Counters of several workers, of which some answer late and some are gone."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from prometheus_client.core import Metric

from mxweir.metrics import Figures, Metrics
from mxweir_policyd.workers.figures import Figuring
from mxweir_policyd.workers.member import Member, WorkerEndedError


class Paper:
    """A worker whose figures are as last heard, until it answers."""

    serving = True

    def __init__(self, heard: float, answer: Callable[[], float]) -> None:
        self.figures: Figures = counted(heard)
        self._answer = answer

    async def ask(self, what: object, seconds: float) -> Figures:
        return counted(self._answer())


def counted(value: float) -> Figures:
    metrics = Metrics("policyd")
    metrics.counter("mxweir_things", "Things.").values[()] = value
    metrics.gauge("mxweir_now", "Now.", [], lambda: [((), value)], summed=True)
    return metrics.figures()


def late() -> float:
    raise TimeoutError


def gone() -> float:
    raise WorkerEndedError


def shown(figuring: Figuring) -> dict[str, float]:
    """What a scrape shows, from its own thread."""

    async def scrape() -> list[Metric]:
        figuring.loop = asyncio.get_running_loop()
        metrics = Metrics("policyd")
        metrics.others = figuring.read
        return await asyncio.to_thread(lambda: list(metrics.collect()))

    families = asyncio.run(scrape())
    return {sample.name: sample.value for family in families for sample in family.samples}


def figuring(*workers: Any) -> Figuring:
    return Figuring(lambda: cast("list[Member]", workers))


def test_a_scrape_shows_what_the_workers_say_now_or_said_last() -> None:
    page = shown(figuring(Paper(1.0, lambda: 10.0), Paper(2.0, late), Paper(4.0, gone)))
    assert (page["mxweir_things_total"], page["mxweir_now"]) == (16.0, 16.0)


def test_of_one_that_is_gone_the_counters_stay_and_the_gauges_go() -> None:
    made = figuring(Paper(1.0, lambda: 10.0))
    for heard in (100.0, 1000.0):
        made.retire(cast("Member", Paper(heard, gone)))
    page = shown(made)
    assert (page["mxweir_things_total"], page["mxweir_now"]) == (1110.0, 10.0)


def test_a_worker_that_does_not_serve_yet_is_not_waited_for() -> None:
    starting = Paper(1.0, late)
    starting.serving = False
    starting.ask = None  # type: ignore[assignment, method-assign]
    assert shown(figuring(starting))["mxweir_things_total"] == 1.0


def test_when_the_daemons_own_loop_stands_still_the_page_shows_what_was_heard_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mxweir_policyd.workers.figures._PATIENCE", 0.01)
    made = figuring(Paper(7.0, late))
    made.loop = asyncio.new_event_loop()
    try:
        metrics = Metrics("policyd")
        metrics.others = made.read
        (things,) = [family for family in metrics.collect() if family.name == "mxweir_things"]
        assert things.samples[0].value == 7.0
    finally:
        made.loop.run_until_complete(asyncio.sleep(0.01))
        made.loop.close()
