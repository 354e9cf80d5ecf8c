"""Where the time of one request goes.

    PYTHONPATH=bench .venv/bin/python -m mxweir_bench.stages

Runs the daemon's own objects in this process, without sockets, on the load
generator's requests, and times each stage by itself. Then measures with
sockets what a request costs a server that does nothing (floor.py), and what it
costs the daemon. Of several passes the best counts: whatever else runs on the
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
from mxweir.events import Decided
from mxweir.facts import Facts
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, PolicyMetrics
from mxweir_bench import load, servers, tools
from mxweir_bench.rates import KEYS
from mxweir_bench.report import table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import temporary_directory
from mxweir_policyd.app import build_pipeline
from mxweir_policyd.protocol import Request, RequestReader
from mxweir_policyd.refresh import DomainsFile
from mxweir_policyd.relaydomains.replica import Replica

_PASSES, _REQUESTS = 5, 5000
_CONNECTIONS, _SECONDS = 64, 2

T = TypeVar("T")
Costs = dict[str, float]
"""Stage and microseconds a request."""


def main() -> None:
    """Measure and print."""
    if servers.IN_MEMORY.is_dir():
        tempfile.tempdir = str(servers.IN_MEMORY)
    with temporary_directory() as directory:
        built = tools.build(directory)
        inside = in_process(built, directory / "inside")
        outside = with_sockets(built, directory)
    print(markdown(inside, outside))


def markdown(inside: Costs, outside: Costs) -> str:
    """Both as one table; what the stages do not explain has a line of its own."""
    quiet, logging = outside.pop("mxweir"), outside.pop("mxweir with log")
    log = inside.pop("log line")
    costs = outside | inside
    costs["everything else"] = quiet - sum(costs.values())
    rows = [(name, f"{cost:.2f}", f"{cost / quiet:.0%}") for name, cost in costs.items()]
    rows.append(("whole daemon", f"{quiet:.2f}", "100%"))
    rows.append(("one more log line, by itself", f"{log:.2f}", f"{log / quiet:.0%}"))
    rows.append(("whole daemon with a log line a decision", f"{logging:.2f}", f"{logging / quiet:.0%}"))
    return table(("stage", "µs/request", "share"), rows)


def in_process(built: Tools, home: Path) -> Costs:
    """Each stage by itself, on requests that were never asked before."""
    config = load_config(servers.configure(home, "127.0.0.1:1"))
    count = 5 * _PASSES * _REQUESTS
    requests = iter(load.requests(built.policyload, count, KEYS))
    replica = Replica(config.state_dir)
    try:
        DomainsFile(config.domains.file, config.domains.max_shrink).load(replica, lambda _: None)
        with (home / "log").open("w") as log:
            settings = replace(config.log, level="info")
            observer = LogObserver(settings, system_clock(), "policyd", log)
            return _stages(config, replica, observer, requests)
    finally:
        replica.close()


def _stages(config: Config, replica: Replica, log: LogObserver, requests: Iterator[bytes]) -> Costs:
    clock, pipeline, reader = system_clock(), build_pipeline(config, replica), RequestReader()
    metrics = PolicyMetrics(Metrics("policyd"))

    def parsed(raw: bytes) -> Request:
        return reader.feed(raw)[0]

    def facts(raw: bytes) -> Facts:
        return pipeline.facts(parsed(raw))

    def decided(raw: bytes) -> Decided:
        return Decided(facts(raw), "pass", "", "", "", "", "DUNNO", 0.0001, ())

    relay = _best(requests, facts, lambda each: pipeline.find_domain(each.recipient_domain))
    limits = _best(requests, facts, lambda each: pipeline.limits.decide(each, clock()))
    decide = _best(requests, facts, lambda each: pipeline.decide(each, clock()))
    again = [raw for _, raw in zip(range(_PASSES * _REQUESTS), requests, strict=False)]
    return {
        "parse": _best(iter(again), bytes, parsed),
        "facts: fold addresses and networks": _best(iter(again), parsed, pipeline.facts),
        "relay check: one lookup in LMDB": relay,
        "five limits": limits,
        "access list, order of checks": decide - relay - limits,
        "count for the metrics": _best(iter(again), decided, metrics),
        "log line": _best(iter(again), decided, log),
    }


def _best(requests: Iterator[bytes], prepare: Callable[[bytes], T], stage: Callable[[T], object]) -> float:
    """Microseconds a request of the fastest pass; each pass takes new requests."""
    passes = []
    for _ in range(_PASSES):
        items = [prepare(next(requests)) for _ in range(_REQUESTS)]
        started = process_time()
        for item in items:
            stage(item)
        passes.append((process_time() - started) / _REQUESTS * 1e6)
    return min(passes)


def with_sockets(built: Tools, directory: Path) -> Costs:
    """CPU time a request of a server that answers unread, of the daemon, and of the daemon with its log."""
    with ExitStack() as stack:
        compared = [
            stack.enter_context(servers.floor(directory)),
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
