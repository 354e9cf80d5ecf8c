"""Fill a replica of PostgreSQL's table for the first time, as the follower does; says what it took.

python -m mxweir_bench.filling CONFIG
"""

import json
import sys
from pathlib import Path
from time import perf_counter

from mxweir.clock import system_clock
from mxweir.config import load
from mxweir_policyd.relaydomains.follow import Follower
from mxweir_policyd.relaydomains.mirror import Mirror
from mxweir_policyd.relaydomains.sources.postgres import Source


def main() -> None:
    """Print one line of JSON: seconds, the process's largest private memory and the file, in MiB."""
    config = load(Path(sys.argv[1]))
    if config.postgres is None:
        raise ValueError("there is no [postgres]")
    begun, memory = perf_counter(), 0.0
    mirror, source = Mirror(config.state_dir), Source(config.postgres)
    for _ in Follower(mirror, source, config.domains.max_shrink, system_clock()).fill():
        memory = max(memory, _private())
    seconds = perf_counter() - begun
    print(json.dumps([seconds, memory, mirror.path.stat().st_size / 2**20]))


def _private() -> float:
    """MiB that are in no file: what it maps of the replica is the page cache's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


if __name__ == "__main__":
    main()
