"""Look domains up in a table, a round whenever a line comes in; says what a lookup took, and the memory.

    python -m mxweir_bench.lookups STATE_DIR DOMAINS

Each round asks for no name twice, and half of them are known, so that no cache in
front helps, whatever the size of the table. Three ways: a bare get of py-lmdb by the
hash; the index, as the policy daemon asks it; and all that the daemon does with the
name of a recipient's domain, from the letters that the client typed.
"""

import json
import random
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import process_time

import lmdb

from mxweir.address import fold_domain
from mxweir_policyd.relaydomains.replica import Replica

_LOOKUPS = 10_000
"""No more than the smallest table has domains: half of them are asked for domains that it has, none twice."""


def name(number: int) -> str:
    """The name of a known domain."""
    return f"domain{number}.example{number % 97}.org"


def main() -> None:
    """Answer each line with one of JSON: microseconds (processor time) a lookup by way, private MiB."""
    directory, domains = Path(sys.argv[1]), int(sys.argv[2])
    before = _private()
    replica = Replica(directory)
    environment = replica._environment  # noqa: SLF001 - the same file cannot be opened twice in a process
    chance = random.Random(domains)
    ways: dict[str, Callable[[str], object]] = {
        "bare": lambda asked: _bare(environment, asked),
        "index": replica.ask,
        "whole": lambda asked: replica.state(fold_domain(asked)),
    }
    for _ in sys.stdin:
        told = {way: _round(look_up, domains, chance) for way, look_up in ways.items()}
        replica.tick()
        print(json.dumps(told | {"memory": _private() - before}), flush=True)


def _bare(environment: lmdb.Environment, asked: str) -> bytes | None:
    with environment.begin() as read:
        return read.get(sha256(asked.encode()).digest())


def _round(look_up: Callable[[str], object], domains: int, chance: random.Random) -> float:
    known = [name(number) for number in chance.sample(range(domains), min(domains, _LOOKUPS) // 2)]
    names = known + [f"un{asked}" for asked in known]
    chance.shuffle(names)
    started = process_time()
    for asked in names:
        look_up(asked)
    return (process_time() - started) / len(names) * 1e6


def _private() -> float:
    """MiB that are in no file: what it maps of the table is the page cache's, and everybody's."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


if __name__ == "__main__":
    main()
