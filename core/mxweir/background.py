"""What a daemon does beside answering, for ever."""

import asyncio
from collections.abc import Callable, Coroutine

from mxweir.events import Observer, Trouble

Work = Callable[[], Coroutine[None, None, None]]
"""Something that goes on until it is cancelled."""

_AGAIN_AFTER = 1.0


async def go_on(work: Work, observe: Observer) -> None:
    """Do a work, again and again if it fails: none of them may end unseen."""
    while True:
        try:
            return await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
            observe(Trouble("internal error in the background", f"{type(error).__name__}: {error}", "error"))
            await asyncio.sleep(_AGAIN_AFTER)
