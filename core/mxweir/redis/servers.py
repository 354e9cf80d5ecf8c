"""What the rest of mxweir asks Redis by, whatever stands behind it.

No call raises and none is left without an answer: each has one callback, which gets
the reply or a RedisError exactly once, within the call's timeout and some
milliseconds. It may get it before the call returns, when nothing can be sent.

Everything here belongs to one event loop.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mxweir.clock import Clock
from mxweir.config.sections import Redis
from mxweir.events import Observer
from mxweir.metrics import Metrics
from mxweir.redis.call import Then
from mxweir.redis.offset import Offset
from mxweir.redis.script import Script
from mxweir.service import SettingError

__all__ = ["Servers", "Then", "add_gauge", "connect"]


class Servers(Protocol):
    """One Redis, a master that Sentinel watches, or the masters of a Cluster."""

    clustered: bool
    """Whether a call may only have keys of one slot."""

    @property
    def available(self) -> bool:
        """Whether a call would be sent now: some master is connected, and its breaker would let it pass."""

    def states(self) -> Mapping[str, int]:
        """How many masters are "available" and how many "away", for a gauge."""

    async def start(self) -> None:
        """Connect, and keep connected; returns after the first try, however it went, within two seconds."""

    def eval(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[bytes | str | int],
        then: Then,
        timeout: float,
    ) -> None:
        """Run a script where the first key is; `timeout` in seconds.

        It is loaded by itself where it is missing: after SCRIPT FLUSH, a failover, a restart.
        """

    def ask(self, command: Sequence[bytes | str | int], key: bytes | str, then: Then, timeout: float) -> None:
        """Give a command where that key is ("": anywhere); `timeout` in seconds."""

    def offset(self, key: bytes | str) -> Offset:
        """How far the clock is ahead that a script has where that key is; known since we are connected."""

    def subscribe(
        self, channel: str, on_message: Callable[[bytes], None], on_connected: Callable[[], None]
    ) -> None:
        """Hear a channel from now on, over a connection of its own that is kept up.

        `on_connected` is called each time it hears again: what was published meanwhile was missed.
        """

    def close(self) -> None:
        """End all connections; whoever still waits gets a RedisError."""


def add_gauge(metrics: Metrics, servers: Callable[[], Servers | None]) -> None:
    """Show how many masters there are; `servers` gives those in use."""

    def read() -> list[tuple[tuple[str, ...], float]]:
        used = servers()
        return [((state,), count) for state, count in used.states().items()] if used else []

    text = "Masters of Redis, by whether they are at our service."
    metrics.gauge("mxweir_redis_masters", text, ["state"], read, summed=True)


def connect(settings: Redis, observe: Observer, clock: Clock = time.monotonic) -> Servers:
    """The servers that the configuration names; nothing is connected before `start`.

    Raises SettingError in one line: hiredis is missing, a certificate cannot be read.
    """
    try:
        from mxweir.redis import topologies  # noqa: PLC0415 - hiredis is an extra
    except ModuleNotFoundError as error:
        raise SettingError(
            f"redis.url: {error.name} is not installed; the extra mxweir[redis] brings it"
        ) from None
    return topologies.client_of(settings, observe, clock)
