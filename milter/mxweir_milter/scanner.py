"""One message, the engines in their order, one deadline over all of them.

The first engine has a share of the time, so that the one after it still has
some; the last has all that is left. An engine that fails, whatever way, is a
`Trouble` and the next one's turn. When none is left, the last failure is the
result.

Later rooms, behind this same `scan`: a breaker per engine, which decides
whether an engine is asked at all, and a bounded number of scans in flight.
"""

import asyncio
from collections.abc import Sequence

from mxweir.deadline import Deadline
from mxweir.events import Observer, Trouble
from mxweir_milter.engines import Engine
from mxweir_milter.engines.error import EngineError
from mxweir_milter.message import Message
from mxweir_milter.verdict import Failed, Reason, Result

_SHARE = 0.6
"""Part of the time left that an engine gets while others wait behind it."""


class Scanner:
    """Asks the engines; lives on the scan loop."""

    def __init__(self, engines: Sequence[Engine], observe: Observer) -> None:
        self._engines = tuple(engines)
        self._observe = observe

    async def scan(self, message: Message, deadline: Deadline) -> Result:
        """The first engine's result that is one; never raises but for being cancelled."""
        result: Result = Failed(Reason.NO_ENGINE)
        for position, engine in enumerate(self._engines, 1):
            last = position == len(self._engines)
            result = await _ask(engine, message, deadline if last else deadline.share(_SHARE))
            if not isinstance(result, Failed):
                return result
            self._observe(Trouble(f"scan failed: {result.reason}", f"{engine}: {result.detail}"))
        return result


async def _ask(engine: Engine, message: Message, deadline: Deadline) -> Result:
    seconds = deadline.left()
    try:
        async with asyncio.timeout(seconds):
            return await engine.scan(message)
    except TimeoutError:
        return Failed(Reason.DEADLINE, engine.name, f"no answer in {seconds:.3g} s")
    except EngineError as error:
        return Failed(error.reason, engine.name, str(error))
    except OSError as error:
        return Failed(Reason.UNREACHABLE, engine.name, error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 -- a fault in one engine's client is the next engine's turn
        return Failed(Reason.INTERNAL, engine.name, repr(error))
