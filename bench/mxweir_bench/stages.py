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
from mxweir.events import Event, tell_all
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
from mxweir_policyd.session import Answerer

_PASSES, _REQUESTS = 5, 5000
_CONNECTIONS, _SECONDS = 64, 2

LOG = "a log line, by itself"

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
    """Each stage by itself, on requests that were never asked before."""
    config = load_config(servers.configure(home, "127.0.0.1:1"))
    count = 5 * _PASSES * _REQUESTS
    requests = iter(load.requests(built.policyload, count, KEYS))
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
    clock, pipeline, reader = system_clock(), build_pipeline(config, replica), RequestReader()
    metrics = PolicyMetrics(Metrics("policyd"))
    events: list[Event] = []
    answerer = Answerer(pipeline, clock, events.append)

    def parsed(raw: bytes) -> Request:
        return reader.feed(raw)[0]

    def facts(raw: bytes) -> Facts:
        return pipeline.facts(parsed(raw))

    def event(raw: bytes) -> Event:
        answerer.answer([parsed(raw)])
        return events.pop()

    relay = _best(requests, facts, lambda each: pipeline.domains.state(each.recipient.domain))
    limits = _best(requests, facts, lambda each: pipeline.limits.decide(each, clock()))
    decide = _best(requests, facts, lambda each: pipeline.decide(each, clock()))
    answer = _best(requests, parsed, lambda each: answerer.answer([each]))
    again = [raw for _, raw in zip(range(_PASSES * _REQUESTS), requests, strict=False)]
    fold = _best(iter(again), parsed, pipeline.facts)
    return {
        "parse": _best(iter(again), bytes, parsed),
        "facts: fold addresses and networks": fold,
        "access list, order of checks": decide - relay - limits,
        "relay check": relay,
        "five limits": limits,
        "reply, clocks, record of what happened": answer - fold - decide,
        "count for the metrics": _best(iter(again), event, tell_all(metrics.handlers())),
        LOG: _best(iter(again), event, tell_all(log.handlers())),
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
