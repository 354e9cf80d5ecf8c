"""What only several keys together can get wrong, and what is allowed but probably not meant."""

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mxweir.address import registrable_domain
from mxweir.config import policies, scanners
from mxweir.config.readers import network
from mxweir.config.schema import Place, Problem
from mxweir.config.sections import AccessEntry, Config, LimitRule
from mxweir.facts import Folder
from mxweir.ratelimit.rate import Rate

T = TypeVar("T")

_MESSAGE_KEYS = ("recipient", "recipient_domain")
_ORGS = ("sender_org", "from_org", "reply_to_org")
_DOMAINS = ("sender_domain", "recipient_domain", *_ORGS)
_ADDRESSES = ("sender", "recipient", "from", "reply_to")
_MOST_VALUES = 100_000
_REDIS_SHARE = 0.8
"""Of policyd.deadline: when Redis has not answered by then, there is still something to be done."""


def problems(config: Config) -> Iterator[Problem]:
    """Every mistake that takes more than one key to see."""
    if config.policyd.workers > 1 and config.redis is None:
        yield Problem(
            ("policyd", "workers"),
            "more than 1 needs [redis]: workers without it would each count for themselves",
        )
    yield from _redis(config)
    yield from _listeners(config)
    yield from _milter(config)
    folder = Folder(config.keys.ipv4_prefix, config.keys.ipv6_prefix, config.keys.recipient_delimiter)
    for index, entry in _readable(config.access):
        yield from _access(entry, ("access", index), folder)
    names: set[str] = set()
    for index, limit in _readable(config.limit):
        if limit.name in names:
            yield Problem(
                ("limit", index, "name"), f'a limit named "{limit.name}" stands above; names are unique'
            )
        names.add(limit.name)
        yield from _limit(limit, ("limit", index), folder)


def warnings(config: Config) -> Iterator[str]:
    """Sentences about what works but surprises."""
    if not config.milter.engine:
        yield "milter.engine: no scanner is configured; the milter marks all mail unscanned"
    yield from scanners.warnings(config.milter)
    for index, limit in enumerate(config.limit):
        if limit.by_content:
            continue
        if limit.unit != "recipient" and any(key in limit.key for key in _MESSAGE_KEYS):
            yield (
                f"limit[{index + 1}].key: Postfix names the recipient at end of data only when there is one; "
                f'limit "{limit.name}" passes over mail to several'
            )


def access_problems(entry: AccessEntry, folder: Folder) -> Iterator[str]:
    """What is wrong with one access entry, wherever it comes from."""
    return (problem.what for problem in _access(entry, (), folder))


def value_problems(key: str, text: str, folder: Folder) -> Iterator[str]:
    """Why a value of a key would never match, if it would not."""
    return (problem.what for problem in _folded(key, text, (), folder))


def _readable(rows: Sequence[T | None]) -> Iterator[tuple[int, T]]:
    """Rows with their places as written; None stands for one that lacks a key, which was told already."""
    return ((index, row) for index, row in enumerate(rows) if row is not None)


def _redis(config: Config) -> Iterator[Problem]:
    redis = config.redis
    if redis is None:
        return
    if redis.timeout > round(_REDIS_SHARE * config.policyd.deadline, 6):
        yield Problem(
            ("redis", "timeout"),
            f"lies above {_REDIS_SHARE:.0%} of policyd.deadline: "
            "the limits in the process would answer too late",
        )
    if (redis.cert is None) != (redis.key is None):
        yield Problem(("redis", "key" if redis.key else "cert"), "cert and key come together or not at all")
    if not redis.url.tls:
        for name in ("ca", "cert", "key", "tls_name"):
            if getattr(redis, name):
                yield Problem(("redis", name), "is for TLS, and redis.url does not begin with rediss")


def _listeners(config: Config) -> Iterator[Problem]:
    seen: dict[str, Place] = {}
    milter = config.milter
    places: list[tuple[Place, object]] = [
        *((("policyd", "listen"), address) for address in config.policyd.listen),
        *((("policyd", "maps"), address) for address in config.policyd.maps),
        (("policyd", "http"), config.policyd.http),
        (("milter", "listen"), milter.listen),
        (("milter", "http"), milter.http),
    ]
    for place, address in places:
        if address is None:
            continue
        if (text := str(address)) in seen:
            yield Problem(place, f"{text} is taken by {'.'.join(map(str, seen[text]))}")
        seen.setdefault(text, place)


def _milter(config: Config) -> Iterator[Problem]:
    milter = config.milter
    if milter.max_memory < milter.max_scan_size:
        yield Problem(
            ("milter", "max_memory"), "lies below milter.max_scan_size: a message of that size never has room"
        )
    yield from scanners.problems(milter, _readable(milter.engine))
    yield from policies.problems(milter, _readable(milter.policy))


def _access(entry: AccessEntry, place: Place, folder: Folder) -> Iterator[Problem]:
    if (entry.block is None) == (entry.allow is None):
        yield Problem(place, 'an entry says either block = "KEY" or allow = "KEY"')
        return
    key = entry.block or entry.allow or ""
    if key != "client_network":
        yield from _folded(key, entry.value, (*place, "value"), folder)
        return
    try:
        network(entry.value)
    except ValueError as error:
        yield Problem((*place, "value"), str(error))


def _limit(limit: LimitRule, place: Place, folder: Folder) -> Iterator[Problem]:
    if len(set(limit.key)) < len(limit.key):
        yield Problem((*place, "key"), "names a key twice")
    if limit.window and limit.burst is not None:
        yield Problem(
            (*place, "burst"), "a sliding window has no burst: its rate is the quota; remove one of the two"
        )
    if limit.distinct:
        yield from _distinct(limit, place)
    if limit.unit != "byte":
        what = f'a size counts bytes, and this limit {limit.unit}s; see "unit"'
        yield from _rates(limit, place, lambda rate: rate.in_bytes, what)
    yield from _overrides(limit, (*place, "overrides"), folder)


def _distinct(limit: LimitRule, place: Place) -> Iterator[Problem]:
    if limit.distinct in limit.key:
        yield Problem((*place, "distinct"), f'"{limit.distinct}" is part of the key: there is only one of it')
    if limit.by_content and limit.distinct in _MESSAGE_KEYS:
        yield Problem(
            (*place, "distinct"), "a message is counted as a whole, and it may have several of these"
        )
    if limit.burst is not None or limit.window or limit.unit != "recipient":
        yield Problem(
            (*place, "distinct"),
            "counts different values over the rate's period; remove burst, window, unit",
        )
    what = f"at most {_MOST_VALUES} different values can be remembered for a key"
    yield from _rates(limit, place, lambda rate: rate.count > _MOST_VALUES, what)


def _rates(limit: LimitRule, place: Place, wrong: Callable[[Rate], bool], what: str) -> Iterator[Problem]:
    """The limit's own rate and those of its overrides, where they are wrong."""
    if wrong(limit.rate):
        yield Problem((*place, "rate"), what)
    for text, rate in limit.overrides.items():
        if rate is not None and wrong(rate):
            yield Problem((*place, "overrides"), f'"{text}": {what}')


def _overrides(limit: LimitRule, place: Place, folder: Folder) -> Iterator[Problem]:
    for text in limit.overrides:
        parts = [part.strip() for part in text.split(",")] if len(limit.key) > 1 else [text]
        if len(parts) != len(limit.key):
            yield Problem(place, f'"{text}" should have {len(limit.key)} parts with commas between')
            continue
        for key, part in zip(limit.key, parts, strict=True):
            yield from _folded(key, part, place, folder)


def _folded(key: str, text: str, place: Place, folder: Folder) -> Iterator[Problem]:
    """A value that folding changes would never match; case alone is folded silently."""
    folded = folder.key(key, text)
    if not text:
        yield Problem(place, "an empty value would match nothing")
    elif key in ("client_address", "client_network"):
        yield from _client(key, text, place, folder)
    elif key in _DOMAINS and (text.startswith(".") or not set("@*/ ").isdisjoint(text)):
        wider = '; "sender_org" has all below it too' if key == "sender_domain" else ""
        yield Problem(place, f'"{text}" is no domain such as example.org{wider}')
    elif key in _ADDRESSES and not _is_address(text):
        yield Problem(place, f'"{text}" is no address such as bob@example.org')
    elif key in _ORGS and registrable_domain(folded) != folded:
        yield Problem(place, f'"{text}" is no registrable domain; write "{registrable_domain(folded)}"')
    elif key in _ADDRESSES and folded != text.lower() and text.isascii():
        yield Problem(place, f'"{text}" is seen as "{folded}"; write that')


def _is_address(text: str) -> bool:
    """A whole address, "<>", or a local user's name: what has a dot and no @ was meant as a domain."""
    local, at, domain = text.rpartition("@")
    return bool(local and domain) if at else "." not in text


def _client(key: str, text: str, place: Place, folder: Folder) -> Iterator[Problem]:
    """Clients are counted by whole networks of the prefixes in [keys], or by single addresses."""
    try:
        seen = folder.client[str(ipaddress.ip_interface(text).ip).encode()]
    except ValueError:
        yield Problem(place, f'"{text}" is not an address or a network of clients')
        return
    wanted = seen.network if key == "client_network" else seen.address
    if text.lower() != wanted:
        yield Problem(place, f'"{text}" is no {key}; write "{wanted}"')
