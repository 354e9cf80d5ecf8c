"""Where counters are shown and reset: in Redis, or where there is none on this host."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mxweir.config import Config
from mxweir.config.sections import Redis
from mxweir.facts import Folder
from mxweir.ratelimit.bulletin import Names, reset_message
from mxweir.ratelimit.limits import Limit, Limits
from mxweir.ratelimit.lookup import Place, Use, places_of, use
from mxweir.ratelimit.shapes import PEEK, Shape, Shapes, arguments_of, read_peek
from mxweir.ratelimit.sketch import merged
from mxweir.ratelimit.talkers import read_report
from mxweir.ratelimit.together import SCRIPT
from mxweir.service import ServiceError
from mxweir_ops.counters_here import InProcess, Shown
from mxweir_ops.redisclient import Client, with_redis


class Seen(NamedTuple):
    """One key of a limit that uses much; `least` and `most`: questions of the last ten to twenty minutes."""

    use: Use
    least: int
    most: int


class Top(NamedTuple):
    """Who uses most of one limit; a key that is not named came at most `unseen` times among `questions`."""

    limit: str
    seen: list[Seen]
    unseen: int
    questions: int


class InRedis:
    """The counters that all hosts share."""

    def __init__(self, redis: Redis, limits: Sequence[Limit], everything: Limits, folder: Folder) -> None:
        self._redis = redis
        self._limits = limits
        self._folder = folder
        self._shapes = Shapes(everything, redis.prefix)
        self._names = Names(redis.prefix)

    def show(self, key: str, *, reset: bool = False) -> Shown:
        """What a key uses; with `reset`, what it used until now."""
        found, passed_over = places_of(self._limits, key, self._folder)

        async def work(client: Client) -> list[Use]:
            uses = await asyncio.gather(*(self._use(client, place) for place in found))
            for place in found if reset else ():
                await self._reset(client, place)
            return list(uses)

        return Shown(with_redis(self._redis, work), passed_over, f"Redis ({self._redis.url})")

    def top(self, most: int) -> tuple[list[Top], int]:
        """Who uses most of each limit, and how many processes said so."""

        async def work(client: Client) -> tuple[list[Top], int]:
            reports = await self._reports(client)
            return [await self._top(client, limit, reports, most) for limit in self._limits], len(reports)

        return with_redis(self._redis, work)

    async def _reports(self, client: Client) -> list[Mapping[str, Any]]:
        """What the processes that run have reported."""
        names = self._names
        processes = await client.ask("ZRANGEBYSCORE", names.processes, "-inf", "+inf", key=names.processes)
        found: list[Mapping[str, Any]] = []
        for process in processes if isinstance(processes, list) else ():
            key = names.report(process.decode())
            match await client.ask("MGET", key, key=key):
                case [bytes(text)]:
                    found.append(read_report(text))
        return found

    async def _top(
        self, client: Client, limit: Limit, reports: Sequence[Mapping[str, Any]], most: int
    ) -> Top:
        prefix = self._shapes.counter(limit, limit.paces.usual).prefix.decode()
        told = merged([report[prefix] for report in reports if prefix in report])
        seen = []
        for talker in told.talkers[:most]:
            place = Place(limit, talker.key)
            seen.append(Seen(await self._use(client, place), talker.least, talker.most))
        unseen = max([told.absent, *(talker.most for talker in told.talkers[most:])])
        return Top(limit.name, seen, unseen, told.events)

    async def _use(self, client: Client, place: Place) -> Use:
        """Asked as a question that brings one, and a value that nobody had: so the wait is for one more."""
        counter = self._shapes.counter_of(*place)
        if counter is None:
            return use(place, 0, 0.0)
        shape = Shape((counter,))
        argument = [counter.argument(secrets.token_hex(16), 1.0)] if counter.takes_argument else []
        reply = await client.eval(SCRIPT, [counter.name(place.key)], arguments_of(shape, argument, 0, PEEK))
        [(used, wait)] = read_peek(reply, shape).figures
        return use(place, used, wait)

    async def _reset(self, client: Client, place: Place) -> None:
        counter = self._shapes.counter_of(*place)
        if counter is not None:
            name = counter.name(place.key)
            await client.ask("DEL", name, key=name)
            await client.ask("PUBLISH", self._names.resets, reset_message(place.limit.name, place.key))


def counters(config: Config, name: str) -> InRedis | InProcess:
    """The counters of a configuration, or of the limit of that name; raises ServiceError if there is none."""
    keys = config.keys
    folder = Folder(keys.ipv4_prefix, keys.ipv6_prefix, keys.recipient_delimiter)
    if name and name not in {rule.name for rule in config.limit}:
        known = ", ".join(rule.name for rule in config.limit) or "none"
        raise ServiceError(f"there is no limit named {name!r}; there are: {known}")
    if config.redis is None:
        return InProcess(config, name, folder)
    limits = Limits(config.limit, folder)
    named = [limit for limit in limits.limits if name in ("", limit.name)]
    return InRedis(config.redis, named, limits, folder)
