"""What a fleet of hosts costs one Redis: CPU time by questions a call, traffic, memory of connections.

A hundred connections ask in turn, each with as many questions in a call as come
together in one turn of a worker's loop: at fifty questions a second on each host that is
nearly always one. The client is ours, without mxweir behind it, so that the figures
are Redis's alone.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from mxweir.ratelimit.shapes import Question
from mxweir.ratelimit.together import SCRIPT
from mxweir_bench import load, rediscost, servers
from mxweir_bench.compare import spread
from mxweir_bench.rates import KEYS
from mxweir_bench.rediscalls import calls, exchange, questions
from mxweir_bench.report import Part, table
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.redis import Redis

HOSTS, EACH = 100, 50
"""Hosts in the fleet, and questions a second on each."""

BATCHES = (1, 8, 32)
"""Questions in a call."""

_QUESTIONS = 40_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one question: microseconds of its process's CPU and in the script; bytes to Redis and back."""

    cpu_us: float
    script_us: float
    sent: float
    received: float


def part(tools: Tools, directory: Path, rounds: int) -> Part:
    """Five limits in calls of different sizes."""
    home = directory / "fleet"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(home))
        connections = [stack.enter_context(connect(redis.unix)) for _ in range(HOSTS)]
        redis.cli("SCRIPT", "LOAD", SCRIPT.source)
        limits = servers.limits(rate=servers.LASTING)
        runs: dict[int, list[Cost]] = {batch: [] for batch in BATCHES}
        for turn, batch in enumerate((BATCHES[-1], *BATCHES * rounds)):  # the first is there to warm up
            requests = load.requests(tools.policyload, _QUESTIONS, KEYS)
            cost = _ask(redis, connections, questions(home / f"five-{turn}", requests, limits), batch)
            if turn:
                runs[batch].append(cost)
        connection = int(redis.info("memory")["mem_clients_normal"]) / HOSTS
    text = f"""\
## A fleet of hosts on one Redis

Five limits, {KEYS:,} senders, recipients and clients; {HOSTS} connections over a unix socket, each of which
asks again when all were answered. Medians of {rounds} rounds of {_QUESTIONS:,} questions.

{_cost_table(runs)}

{HOSTS} hosts with {EACH} questions a second each: {_fleet(runs[1])}

A connection takes {connection / 1024:.0f} KiB; what keys take, `mxweir_bench.redismemory` says."""
    costs = {batch: [asdict(cost) for cost in of] for batch, of in runs.items()}
    return Part(costs, text)


def _ask(redis: Redis, connections: Sequence[socket.socket], asked: Sequence[Question], batch: int) -> Cost:
    rows = list(calls(asked, batch))
    before, net = rediscost.count(redis), _net(redis)
    exchange(connections, rows)
    now, (sent, received) = rediscost.count(redis), _net(redis)
    cost = rediscost.cost(before, now, len(asked))
    each = (sent - net[0]) / len(asked), (received - net[1]) / len(asked)
    return Cost(cost.cpu_us, cost.script_us, *each)


def _net(redis: Redis) -> tuple[int, int]:
    told = redis.info("stats")
    return int(told["total_net_input_bytes"]), int(told["total_net_output_bytes"])


def _cost_table(runs: Mapping[int, Sequence[Cost]]) -> str:
    return table(
        ("questions a call", "µs of its process", "µs in the script", "a core carries", "bytes in", "out"),
        (
            (
                str(batch),
                f"{_median(of, 'cpu_us'):.1f}",
                f"{_median(of, 'script_us'):.1f}",
                f"{1e6 / _median(of, 'cpu_us'):,.0f}/s",
                f"{_median(of, 'sent'):.0f}",
                f"{_median(of, 'received'):.0f}",
            )
            for batch, of in runs.items()
        ),
    )


def _fleet(costs: Sequence[Cost]) -> str:
    asked, cpu_us = HOSTS * EACH, _median(costs, "cpu_us")
    megabits = asked * _median(costs, "sent") * 8 / 1e6
    return (
        f"{asked:,} in all, nearly every one a call of its own, take {asked * cpu_us / 1e6:.0%} of a core\n"
        f"and {megabits:.0f} Mbit/s to it. A core carries {1e6 / cpu_us / EACH:,.0f} such hosts."
    )


def _median(costs: Sequence[Cost], figure: str) -> float:
    return spread([getattr(cost, figure) for cost in costs]).median
