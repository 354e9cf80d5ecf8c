"""Redis: can it be reached, may we do there what we need, and how long does it take?"""

from collections.abc import Iterator
from statistics import median
from time import perf_counter

from mxweir.config.sections import Redis
from mxweir.redis.script import Script
from mxweir.service import ServiceError
from mxweir_ops.checkup.finding import BAD, GOOD, NOTE, Finding
from mxweir_ops.redisclient import Client, with_redis

_READ = Script("return redis.call('MGET', KEYS[1])")
_TIMES = 11

_SHARE = 0.2
"""Of `redis.timeout`: what takes longer than this now will take too long when there is more to do."""


def check(settings: Redis) -> Iterator[Finding]:
    """Connect as the daemons do, and have a script read a key of ours; nothing is changed."""

    async def times(client: Client) -> list[float]:
        return [await _timed(client, f"{settings.prefix}:doctor") for _ in range(_TIMES)]

    try:
        seconds = median(with_redis(settings, times))
    except ServiceError as error:
        yield Finding(BAD, "Redis", str(error))
        return
    slow = seconds > _SHARE * settings.timeout
    much = f": that is much of redis.timeout ({settings.timeout * 1000:g} ms)" if slow else ""
    yield Finding(
        NOTE if slow else GOOD, f"Redis, {settings.url}", f"answers in {seconds * 1000:.1f} ms{much}"
    )


async def _timed(client: Client, key: str) -> float:
    began = perf_counter()
    await client.eval(_READ, [key], [])
    return perf_counter() - began
