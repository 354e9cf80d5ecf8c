"""Where the time of one request goes.

    PYTHONPATH=bench .venv/bin/python -m mxweir_bench.stages

Runs the daemon's own objects in this process, without sockets, on the load
generator's requests, and times each stage by itself. Then measures with
sockets what a request costs a server that only takes as long (floor.py), and
what it costs the daemon. Of several passes the best counts: whatever else runs on the
machine only adds.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TypeVar

from mxweir.clock import system_clock
from mxweir.config import Config
from mxweir.config import load as load_config
from mxweir.events import PASS, Decided, tell_all
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir_bench import load, servers, tools
from mxweir_bench.rates import KEYS
from mxweir_bench.report import table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import temporary_directory
from mxweir_policyd.answerer import Answerer
from mxweir_policyd.protocol import Attributes, RequestReader
from mxweir_policyd.refresh import DomainsFile
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.worker import build_pipeline

_PASSES, _ROWS = 4, 60
_WARMING = 4 * KEYS
_CONNECTIONS, _SECONDS = 64, 2

LOG = "a log line, by itself"

T = TypeVar("T")
Row = list[bytes]
"""Requests that come in together, one a connection."""

Costs = dict[str, float]
"""Stage and microseconds a request."""


def main() -> None:
    """Measure and print."""
    if servers.IN_MEMORY.is_dir():
        tempfile.tempdir = str(servers.IN_MEMORY)
    with temporary_directory() as directory:
        built = tools.build(directory)
        inside = in_process(built, directory / "inside")
        log = inside.pop(LOG)
        outside = with_sockets(built, directory, sum(inside.values()))
    print(markdown(inside, log, outside))


def markdown(inside: Costs, log: float, outside: Costs) -> str:
    """All costs as one table; what the stages do not explain has a line of its own."""
    whole, logging = outside["mxweir"], outside["mxweir with log"]
    costs = {"sockets and event loop": outside["floor"] - sum(inside.values()), **inside}
    costs["everything else"] = whole - sum(costs.values())
    costs |= {"whole daemon": whole, LOG: log, "whole daemon with a log line a decision": logging}
    rows = [(name, f"{cost:.2f}", f"{cost / whole:.0%}") for name, cost in costs.items()]
    return table(("stage", "µs/request", "share"), rows)


def in_process(built: Tools, home: Path) -> Costs:
    """Each stage by itself, in rows as they come together, on requests that were never asked before."""
    config = load_config(servers.configure(home, "127.0.0.1:1"))
    requests = iter(load.requests(built.policyload, _WARMING + 5 * _PASSES * _ROWS * _CONNECTIONS, KEYS))
    replica = Replica(config.state_dir)
    try:
        DomainsFile(config.domains.file, config.domains.max_shrink).load(replica, lambda _: None)
        with (home / "log").open("w", buffering=1) as log:
            settings = replace(config.log, level="info")
            observer = LogObserver(settings, system_clock(), "policyd", log)
            return _stages(config, replica, observer, requests)
    finally:
        replica.close()


def _stages(config: Config, replica: Replica, log: LogObserver, requests: Iterator[bytes]) -> Costs:
    clock, reader = system_clock(), RequestReader()
    pipeline = build_pipeline(config, replica)
    unlimited = build_pipeline(replace(config, limit=()), replica)
    tell = tell_all(PolicyMetrics(Metrics("policyd")).handlers())
    answerer = Answerer(pipeline, clock, tell, tell_each=False)

    def parse(row: Row) -> list[Attributes]:
        return [reader.feed(raw)[0] for raw in row]

    def decided(row: Row) -> list[Decided]:
        return [Decided(pipeline.facts(request), PASS, 0.0001) for request in parse(row)]

    def write(row: list[Decided]) -> None:
        for event in row:
            log.handlers()[Decided](event)

    rows = iter(lambda: [raw for _, raw in zip(range(_CONNECTIONS), requests, strict=False)], [])
    for _ in range(_WARMING // _CONNECTIONS):  # by then nearly every key has been folded and counted once
        row = parse(next(rows))
        unlimited.express(row, [], clock())
        pipeline.express(row, [], clock())
    folding = _best(rows, parse, lambda row: unlimited.express(row, [], clock()))
    deciding = _best(rows, parse, lambda row: pipeline.express(row, [], clock()))
    answering = _best(rows, parse, answerer.answer)
    return {
        "parse": _best(rows, list, parse),
        "fold, relay check, repeated questions": folding,
        "five limits": deciding - folding,
        "clocks, metrics": answering - deciding,
        LOG: _best(rows, decided, write),
    }


def _best(rows: Iterator[Row], prepare: Callable[[Row], T], stage: Callable[[T], object]) -> float:
    """Microseconds a request of the fastest pass; each pass takes new requests."""
    passes = []
    for _ in range(_PASSES):
        items = [prepare(next(rows)) for _ in range(_ROWS)]
        started = process_time()
        for item in items:
            stage(item)
        passes.append((process_time() - started) / _ROWS / _CONNECTIONS * 1e6)
    return min(passes)


def with_sockets(built: Tools, directory: Path, deciding: float) -> Costs:
    """CPU time a request: floor.py waiting that many microseconds, the daemon, the daemon with log."""
    with ExitStack() as stack:
        compared = [
            stack.enter_context(servers.floor(directory, deciding)),
            stack.enter_context(servers.mxweir("mxweir", directory)),
            stack.enter_context(servers.mxweir("mxweir with log", directory, level="info")),
        ]
        return {server.name: _cpu(built, server) for server in compared}


def _cpu(built: Tools, server: Server) -> float:
    options: Sequence[str] = [f"--conns={_CONNECTIONS}", f"--seconds={_SECONDS}", f"--keys={KEYS}"]
    runs = [load.run(built.policyload, server, options) for _ in range(_PASSES)]
    return min(run.server_cpu / run.rps for run in runs) * 1e6


if __name__ == "__main__":
    main()
