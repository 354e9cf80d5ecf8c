"""What only several keys together can get wrong, and what is allowed but probably not meant."""

from collections.abc import Iterator
from itertools import pairwise

from mxweir.address import registrable_domain
from mxweir.config.readers import network
from mxweir.config.schema import Place, Problem
from mxweir.config.sections import AccessEntry, Config, LimitRule
from mxweir.facts import Folder

_NOT_YET = "this version counts in the process and reads domains from a file; remove this table"
_MESSAGE_KEYS = ("recipient", "recipient_domain")


def problems(config: Config) -> Iterator[Problem]:
    """Every mistake that takes more than one key to see."""
    if config.redis is not None:
        yield Problem(("redis",), _NOT_YET)
    if config.postgres is not None:
        yield Problem(("postgres",), _NOT_YET)
    if config.policyd.workers > 1 and config.redis is None:
        yield Problem(
            ("policyd", "workers"),
            "more than 1 needs [redis]: workers without it would each count for themselves",
        )
    yield from _listeners(config)
    yield from _milter(config)
    folder = Folder(config.keys.ipv4_prefix, config.keys.ipv6_prefix, config.keys.recipient_delimiter)
    for index, entry in enumerate(config.access):
        yield from _access(entry, ("access", index), folder)
    names: set[str] = set()
    for index, limit in enumerate(config.limit):
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
    for index, limit in enumerate(config.limit):
        if limit.unit != "recipient" and any(key in limit.key for key in _MESSAGE_KEYS):
            yield (
                f"limit[{index + 1}].key: Postfix names the recipient at end of data only when there is one; "
                f'limit "{limit.name}" passes over mail to several'
            )


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
    for index, engine in enumerate(milter.engine):
        if engine.type != "spamd":
            yield Problem(
                ("milter", "engine", index, "type"), f'this version speaks to "spamd" only, not {engine.type}'
            )
    thresholds = [
        (name, value)
        for name in ("tag_at", "quarantine_at", "reject_at")
        if (value := getattr(milter, name)) is not None
    ]
    for (low, lower), (high, higher) in pairwise(thresholds):
        if lower > higher:
            yield Problem(
                ("milter", high), f"{higher} lies below {low} = {lower}, which would never be reached"
            )


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
        if limit.distinct in limit.key:
            yield Problem(
                (*place, "distinct"), f'"{limit.distinct}" is part of the key: there is only one of it'
            )
        if limit.burst is not None or limit.window or limit.unit != "recipient":
            yield Problem(
                (*place, "distinct"),
                "counts different values over the rate's period; remove burst, window, unit",
            )
        if limit.rate.count > 100_000:
            yield Problem((*place, "rate"), "at most 100000 different values can be remembered for a key")
    for text in limit.overrides:
        parts = [part.strip() for part in text.split(",")] if len(limit.key) > 1 else [text]
        if len(parts) != len(limit.key):
            yield Problem(
                (*place, "overrides"), f'"{text}" should have {len(limit.key)} parts with commas between'
            )
            continue
        for key, part in zip(limit.key, parts, strict=True):
            yield from _folded(key, part, (*place, "overrides"), folder)


def _folded(key: str, text: str, place: Place, folder: Folder) -> Iterator[Problem]:
    """A value that folding changes would never match; case alone is folded silently."""
    folded = folder.key(key, text)
    if not text:
        yield Problem(place, "an empty value would match nothing")
    elif key == "client_network" and folder.client[text.encode()].network != text and "/" not in text:
        yield Problem(place, f'"{text}" is not a network; write "{folder.client[text.encode()].network}"')
    elif key == "sender_org" and registrable_domain(folded) != folded:
        yield Problem(place, f'"{text}" is no registrable domain; write "{registrable_domain(folded)}"')
    elif key in ("sender", "recipient") and folded != text.lower() and text.isascii():
        yield Problem(place, f'"{text}" is seen as "{folded}"; write that')
