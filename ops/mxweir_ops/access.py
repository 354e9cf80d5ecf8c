"""Where an operator's word about a value goes: to Redis, to the running daemon, or to this host's file."""

from pathlib import Path
from typing import NamedTuple

from mxweir.clock import system_clock
from mxweir.config import Config
from mxweir.config.sections import Redis
from mxweir.service import ServiceError
from mxweir_ops.daemon import ask_daemon, not_permitted
from mxweir_ops.owner import become_owner
from mxweir_ops.redisclient import Client, RedisAwayError, with_redis
from mxweir_policyd.accesslist import kept, remote
from mxweir_policyd.accesslist.book import Book
from mxweir_policyd.accesslist.record import MOST, Record, parse

EVERYWHERE = "on every host"
HERE = "on this host"


class Done(NamedTuple):
    """What was said, what it replaces, and where it is in force; `trouble` if it was not saved."""

    record: Record
    before: Record | None
    where: str
    trouble: str = ""


class FullError(Exception):
    """There is no room for one more entry."""

    def __init__(self) -> None:
        super().__init__(f"there are {MOST} entries already; nothing was changed")


def in_redis(settings: Redis, record: Record) -> Done | None:
    """Say it to all hosts; None where there was nothing to withdraw. Raises RedisAwayError, FullError."""
    names = remote.Names(settings.prefix)

    async def say(client: Client) -> object:
        return await client.eval(remote.CHANGE, names.keys, remote.change(names, record))

    reply = with_redis(settings, say)
    match reply:
        case [b"nothing"]:
            return None
        case [b"full"]:
            raise FullError
        case [bytes(version)] | [bytes(version), None]:
            return Done(record._replace(made=int(version)), None, EVERYWHERE)
        case [bytes(version), bytes(before)]:
            return Done(record._replace(made=int(version)), remote.record_of(before), EVERYWHERE)
    raise RedisAwayError(f"Redis ({settings.url}) said {reply!r:.100}, which is no answer of the script")


def here(config: Config, record: Record) -> Done | None:
    """Say it on this host; None where there was nothing to withdraw. Raises ServiceError, FullError."""
    answer = ask_daemon(config, {"access": record.said()})
    if answer is None:
        return _in_file(kept.list_path(config.state_dir), record)
    if "full" in answer:
        raise FullError
    if "nothing" in answer:
        return None
    before = parse(answer["before"]) if answer["before"] else None
    return Done(record._replace(made=answer["version"]), before, HERE, answer["unsaved"])


def in_force(config: Config) -> tuple[list[Record], str]:
    """What operators said, and a note if that may not be the latest. Raises ServiceError, OSError."""
    if config.redis is not None:
        try:
            return with_redis(config.redis, _Reading(remote.Names(config.redis.prefix)).all), ""
        except RedisAwayError as error:
            note = f"{error}; what follows is what this host knows"
    else:
        note = ""
    become_owner(config.state_dir)
    try:
        return _read(kept.list_path(config.state_dir)).records, note
    except PermissionError:
        raise not_permitted(config.state_dir) from None


class _Reading:
    """Reads the whole list, page by page."""

    def __init__(self, names: remote.Names) -> None:
        self._names = names

    async def all(self, client: Client) -> list[Record]:
        found: dict[str, Record] = {}
        version = 0
        while True:
            reply = await client.eval(remote.SINCE, self._names.keys, [str(version), remote.PAGE])
            try:
                reading = remote.read(reply, version)
            except ValueError as error:
                raise RedisAwayError(f"the list in Redis cannot be read: {error}") from None
            found |= {record.field: record for record in reading.records}
            if not reading.more:
                return list(found.values())
            version = reading.read


def _read(path: Path) -> kept.Kept:
    try:
        return kept.read(path)
    except FileNotFoundError:
        return kept.Kept("", 0, [])
    except kept.DamagedError as error:
        raise ServiceError(
            f"{path}: {error}; a daemon that starts puts it aside and begins a new one"
        ) from None


def _in_file(path: Path, record: Record) -> Done | None:
    """No daemon runs: the next one finds it in the file."""
    writer = kept.Writer(path)
    if not writer.chosen():
        raise ServiceError(f"{path}: a daemon is just starting or stopping; try again")
    try:
        now = system_clock()()
        book = Book()
        held = _read(path)
        book.load(*held, now)
        before = book.get(record.field)
        if not record.action and (before is None or not before.action):
            return None
        made = max(int(now * 1e6), held.version + 1)
        record = record._replace(made=made, version=made)
        if not book.take(record, now):
            raise FullError
        writer.write(kept.Kept(held.history, made, book.records()))
        return Done(record, before, f"{HERE}, where no daemon runs now")
    finally:
        writer.close()
