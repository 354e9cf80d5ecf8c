"""What a message costs while nobody is asked, because the breakers of all engines are open.

Messages are sent one after the other to the milter directly (mta.py). Two milters
take turns: one whose engines are all unreachable, with their breakers open, and
one that has no engine at all and answers without any thought of scanning. The
difference is what open breakers cost.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles

from mxweir.endpoint import Unix
from mxweir_bench import milters
from mxweir_bench.compare import added, spread
from mxweir_bench.load import InvalidRunError
from mxweir_bench.milters import Ours
from mxweir_bench.mta import Letter, Session
from mxweir_bench.report import Part, at_most, table
from mxweir_ops.lab.place import free_endpoint

_MESSAGES = 500
_UNTIL_OPEN = 50
_BREAKER = '[milter.breaker]\nmin_calls = 5\npause = "1h"\n'


@dataclass(frozen=True, slots=True)
class Run:
    """Milliseconds from the end of a message to its answer: the median, and what one in a hundred exceeds."""

    median: float
    p99: float


def part(directory: Path, rounds: int) -> Part:
    """The two milters in turn."""
    home = directory / "breakers"
    home.mkdir()
    nobody = milters.spamd(Unix(f"{home}/nobody")), milters.rspamd(free_endpoint())
    with ExitStack() as stack:
        none = stack.enter_context(milters.mxweir("no engine", home, "", "asyncio"))
        cut = stack.enter_context(
            milters.mxweir("open breakers", home, "".join(nobody) + _BREAKER, "asyncio")
        )
        asyncio.run(_times(cut, _UNTIL_OPEN))
        runs: dict[str, list[Run]] = {"no engine": [], "all breakers open": []}
        for _ in range(rounds):
            for (name, of), ours in zip(runs.items(), (none, cut), strict=True):
                of.append(asyncio.run(_run(ours)))
                if name != "no engine" and not _all_open(ours):
                    raise InvalidRunError("the breakers did not stay open")
    medians = [[run.median for run in of] for of in runs.values()]
    extra = added(medians[1], medians[0])
    shown = table(
        ("milter", "median", "p99"),
        [
            (name, *(f"{spread(of_each).median:.3f} ms" for of_each in _columns(of)))
            for name, of in runs.items()
        ],
    )
    text = f"""\
## All breakers open

{rounds} rounds of {_MESSAGES} messages of 4 KiB, one after the other; from the end of a message to its
answer. Open breakers add {extra.median:.3f} ms ({extra.low:.3f} to {extra.high:.3f}).

{shown}"""
    target = at_most("all breakers open: a message's extra time", extra.median, 1, "ms")
    return Part({name: [asdict(run) for run in of] for name, of in runs.items()}, text, [target])


async def _run(ours: Ours) -> Run:
    cuts = quantiles(await _times(ours, _MESSAGES), n=100)
    return Run(1000 * cuts[49], 1000 * cuts[98])


async def _times(ours: Ours, messages: int) -> list[float]:
    """Seconds that each answer took."""
    async with await Session.open(ours.milter.endpoint) as session:
        return [(await session.send(Letter(4096))).seconds for _ in range(messages)]


def _all_open(ours: Ours) -> bool:
    return all(
        ours.metric(f'mxweir_milter_engine_breaker{{address="1",engine="{kind}",position="{position}"}}') == 2
        for position, kind in enumerate(("spamd", "rspamd"), 1)
    )


def _columns(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    return [run.median for run in runs], [run.p99 for run in runs]
