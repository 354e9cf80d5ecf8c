"""Where counters are shown and reset: in Redis, in the running daemons, or in what the last ones saved."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mxweir.clock import system_clock
from mxweir.config import Config
from mxweir.config.sections import Redis
from mxweir.facts import Folder
from mxweir.ratelimit import snapshot
from mxweir.ratelimit.bulletin import Names, reset_message
from mxweir.ratelimit.control import LimitsControl
from mxweir.ratelimit.limits import Limit, Limits
from mxweir.ratelimit.lookup import Place, Use, places_of, use
from mxweir.ratelimit.shapes import PEEK, Shape, Shapes, arguments_of, read_peek
from mxweir.ratelimit.sketch import merged
from mxweir.ratelimit.talkers import read_report
from mxweir.ratelimit.together import SCRIPT
from mxweir.service import ServiceError
from mxweir_milter import counting
from mxweir_ops.daemon import NAMES, ask_daemon
from mxweir_ops.redisclient import Client, with_redis
from mxweir_policyd import worker


class Shown(NamedTuple):
    """Counters, what was passed over, and where they were found."""

    uses: list[Use]
    passed_over: list[str]
    source: str


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
        prefix = self._shapes.counter(limit, limit.paces.usual).prefix
        told = merged([report[prefix.decode()] for report in reports if prefix.decode() in report])
        seen = []
        for talker in told.talkers[:most]:
            place = Place(limit, talker.key.removeprefix(prefix).decode("utf-8", "surrogateescape"))
            seen.append(Seen(await self._use(client, place), talker.least, talker.most))
        unseen = max([told.absent, *(talker.most for talker in told.talkers[most:])])
        return Top(limit.name, seen, unseen, told.events)

    async def _use(self, client: Client, place: Place) -> Use:
        """Asked as a question that brings one, and a value that nobody had: so the wait is for one more."""
        counter = self._shapes.counter_of(*place)
        if counter is None:
            return use(place, 0, 0.0)
        shape = Shape((counter,), False)
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


class InProcess:
    """The counters of this host alone: the policy daemon's, and the milter's of the limits by content."""

    def __init__(self, config: Config, name: str, folder: Folder) -> None:
        rules = [rule for rule in config.limit if name in ("", rule.name)]
        self._order = {rule.name: place for place, rule in enumerate(rules)}
        envelope = [rule for rule in rules if not rule.by_content]
        content = [rule for rule in rules if rule.by_content]
        places = worker.snapshot_path(config.state_dir), counting.snapshot_path(config.state_dir)
        self._parts = [
            _Part(config, daemon, name, Limits(counted, folder), folder, saved)
            for daemon, counted, saved in zip(("policyd", "milter"), (envelope, content), places, strict=True)
            if counted
        ]

    def show(self, key: str, *, reset: bool = False) -> Shown:
        """As of those in Redis; raises ServiceError where no daemon answers that could reset the key."""
        told = [part.reset(key) if reset else part.ask({"show": key}) for part in self._parts]
        uses = self._uses(told)
        missed = [line for one in told for line in one.missed]
        if missed and not uses:
            raise ServiceError("; ".join(missed))
        passed_over = [line for one in told for line in one.answer["passed_over"]]
        return Shown(uses, [*passed_over, *missed], _sources(told))

    def top(self, most: int) -> tuple[list[Use], str]:
        """Who uses most of each limit now, exactly."""
        told = [part.ask({"top": most}) for part in self._parts]
        return self._uses(told), _sources(told)

    def _uses(self, told: Sequence["_Told"]) -> list[Use]:
        """In the limits' order, whoever counts them."""
        uses = [Use(**each) for one in told for each in one.answer["uses"]]
        return sorted(uses, key=lambda used: self._order.get(used.limit, len(self._order)))


class _Told(NamedTuple):
    """What one daemon says of its counters, where that comes from, and what could not be done."""

    answer: Mapping[str, Any]
    source: str
    missed: Sequence[str] = ()


def _sources(told: Sequence[_Told]) -> str:
    return "; ".join(one.source for one in told) or "there are no limits"


class _Part:
    """The counters of one daemon; where none answers, those that it saved last."""

    def __init__(
        self, config: Config, daemon: str, name: str, limits: Limits, folder: Folder, saved: Path
    ) -> None:
        self._config = config
        self._daemon = daemon
        self._name = name
        self._limits = limits
        self._folder = folder
        self._saved = saved
        self._nobody = f"no {NAMES[daemon]} answers"

    def ask(self, question: Mapping[str, Any]) -> _Told:
        question = {**question, "limit": self._name}
        return self._ask_daemon(question) or self._look_up(question)

    def reset(self, key: str) -> _Told:
        if told := self._ask_daemon({"reset": key, "limit": self._name}):
            return told
        found, passed_over = places_of(self._limits.limits, key, self._folder)
        missed = [f"{place.limit.name}: not reset, for {self._nobody}" for place in found]
        return _Told({"uses": [], "passed_over": passed_over}, self._nobody, missed)

    def _ask_daemon(self, question: Mapping[str, Any]) -> _Told | None:
        answer = ask_daemon(self._config, {"limits": question}, self._daemon)
        return None if answer is None else _Told(answer, f"the running {NAMES[self._daemon]}")

    def _look_up(self, question: Mapping[str, Any]) -> _Told:
        try:
            snapshot.read(self._saved, self._limits, system_clock()())
            source = f"{self._nobody}: the counters that it saved last"
        except (snapshot.SnapshotError, OSError):
            source = f"{self._nobody}, and no counters were saved"
        control = LimitsControl(lambda: (self._limits, self._folder), system_clock())
        return _Told(asyncio.run(control.answer(question)), source)


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
