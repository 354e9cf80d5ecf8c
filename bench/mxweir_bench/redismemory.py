"""How much memory of Redis a key takes, by kind; and a storm of senders of which each comes once.

`python -m mxweir_bench.redismemory [SENDERS]`; a million senders take a minute.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from mxweir.config import loads
from mxweir.facts import Facts
from mxweir.testing import question
from mxweir_ops.lab.counted import Counted, Direct
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.redis import Redis

_KEYS = 20_000
_ROW = 256
_HOUR = 3600 * 1_000_000


class Kind(NamedTuple):
    """What a key holds: how often each is asked, how long after one another, by how many values."""

    name: str
    rule: str
    times: int = 1
    instance: bool = False
    gap: int = 0


KINDS = (
    Kind("rate", 'rate = "500/day"'),
    Kind("quota, used once", 'rate = "500/day"\nwindow = true'),
    Kind("quota, used all day long", 'rate = "500/day"\nwindow = true', 61, gap=_HOUR * 24 // 60),
    Kind("one value", 'rate = "500/day"\ndistinct = "recipient"'),
    Kind("10 values", 'rate = "500/day"\ndistinct = "recipient"', 10),
    Kind("100 values", 'rate = "500/day"\ndistinct = "recipient"', 100),
    Kind("200 values", 'rate = "500/day"\ndistinct = "recipient"', 200),
    Kind("rate, and a question to be known again", 'rate = "500/day"', 1, instance=True),
)


def bytes_per_key(redis: Redis, kind: Kind, keys: int = _KEYS) -> float:
    """What the keys of this kind take, each, with what the tables of all keys take for them."""
    fill(redis, kind, 1)
    before = int(redis.info("memory")["used_memory"])
    fill(redis, kind, keys)
    return (int(redis.info("memory")["used_memory"]) - before) / keys


def fill(redis: Redis, kind: Kind, keys: int) -> None:
    """Make so many keys of this kind, and no others; senders have 27 characters."""
    servers = Direct(redis)
    servers.send("FLUSHALL")
    limits = Counted(servers, loads(f'[[limit]]\nname = "sender"\nkey = "sender"\n{kind.rule}\n').limit)
    for time in range(kind.times):
        limits.at(time * kind.gap)
        for row in rows(keys, time, kind.instance):
            limits.decide(*row)
    servers.close()


def rows(senders: int, time: int = 0, instance: bool = False) -> Iterator[list[Facts]]:
    """Questions of senders of which each comes once."""
    for first in range(0, senders, _ROW):
        yield [
            question(
                sender=f"sender{number:07}@bulk.example",
                recipient=f"recipient{time:03}@b.example",
                instance=f"{number:x}.{time:x}.5f3e2a91.0" if instance else "",
            )
            for number in range(first, min(senders, first + _ROW))
        ]


def main(senders: int) -> None:
    """Print both."""
    with temporary_directory() as directory, Redis(directory) as redis:
        for kind in KINDS:
            each = bytes_per_key(redis, kind, max(2000, _KEYS // kind.times))
            print(f"{kind.name:40} {each:8.0f} bytes")
        each = bytes_per_key(redis, KINDS[0], senders)
        print(f"{senders} senders, each once: {each * senders / 1e6:.0f} MB, {each:.0f} bytes each")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
