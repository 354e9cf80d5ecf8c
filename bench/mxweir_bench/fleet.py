"""What a fleet of hosts costs one Redis: CPU time by questions a call, memory by keys, connections, traffic.

A hundred connections ask in turn, each with as many questions in a call as come
together in one turn of a worker's loop: at fifty questions a second on each host that is
nearly always one. The client is ours, without mxweir behind it, so that the figures
are Redis's alone.
"""

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import hiredis

from mxweir.config import load as load_config
from mxweir.facts import Facts, Folder
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shapes import CHARGE, Question, Shapes, arguments_of, packed
from mxweir.ratelimit.together import SCRIPT
from mxweir_bench import load, rediscost, servers
from mxweir_bench.load import InvalidRunError
from mxweir_bench.rates import KEYS
from mxweir_bench.rediscost import Cost
from mxweir_bench.report import Part, table
from mxweir_bench.tools import Tools
from mxweir_ops.lab.place import connect
from mxweir_ops.lab.redis import Redis
from mxweir_policyd.protocol import RequestReader

HOSTS, EACH = 100, 50
"""Hosts in the fleet, and questions a second on each."""

BATCHES = (1, 8, 32)
"""Questions in a call."""

_QUESTIONS = 40_000
_FILLING = 20_000

_KINDS = {
    "rate": 'rate = "1000/day"',
    "window": 'rate = "1000/day"\nwindow = true',
    "distinct, one value": 'rate = "1000/day"\ndistinct = "recipient"',
}
"""Of so slow a rate that no key expires meanwhile."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one question: to Redis, and back."""

    sent: float
    received: float


def part(tools: Tools, directory: Path) -> Part:
    """Five limits in calls of different sizes; the memory of a key of each kind, and of a connection."""
    home = directory / "fleet"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(home))
        connections = [stack.enter_context(connect(redis.unix)) for _ in range(HOSTS)]
        redis.cli("SCRIPT", "LOAD", SCRIPT.source)
        limits = servers.limits(rate=servers.LASTING)
        costs, traffic = {}, {}
        for turn, batch in enumerate((BATCHES[0], *BATCHES)):  # the first is there to warm up
            requests = load.requests(tools.policyload, _QUESTIONS, KEYS)
            questions = _questions(home / f"five-{turn}", requests, limits)
            costs[batch], traffic[batch] = _ask(redis, connections, questions, batch)
        connection = int(redis.info("memory")["mem_clients_normal"]) / HOSTS
        keys = _memory(redis, connections[0], home, load.requests(tools.policyload, _FILLING, _FILLING))
    text = f"""\
## A fleet of hosts on one Redis

Five limits, {KEYS:,} senders, recipients and clients; {HOSTS} connections over a unix socket, each of which
asks again when all were answered.

{_cost_table(costs, traffic)}

{HOSTS} hosts with {EACH} questions a second each: {_fleet(costs[1], traffic[1])}

Memory: a connection has {connection / 1024:.0f} KiB, and a key, with its name (some 50 bytes) and expiry:

{_memory_table(keys)}"""
    return Part({"costs": {batch: asdict(cost) for batch, cost in costs.items()}, "bytes": keys}, text)


def _questions(
    home: Path, requests: Sequence[bytes], limits: str, *, known_again: bool = True
) -> list[Question]:
    """What Redis is asked for these requests."""
    config = load_config(servers.configure(home, "127.0.0.1:1", counted=limits))
    folder, reader = Folder(), RequestReader()
    shapes = Shapes(Limits(config.limit, folder), "mxweir")
    asked = []
    for request in requests:
        ((state, client, helo, sender, recipient, queue_id, instance, size, user, _),) = reader.feed(request)
        parts = folder.client[client], folder.sender[sender], folder.recipient[recipient]
        facts = Facts(*parts, helo, user, state, b"", instance if known_again else b"", queue_id, size)
        if question := shapes.question(facts):
            asked.append(question)
    return asked


def _calls(questions: Sequence[Question], batch: int) -> Iterator[bytes]:
    """These questions as Redis takes them, so many in a call."""
    for first in range(0, len(questions), batch):
        together = questions[first : first + batch]
        names, arguments = packed(together)
        told = arguments_of(together[0].shape, arguments, 0, CHARGE)
        words = ("EVALSHA", SCRIPT.sha, len(names), *names, *told)
        yield hiredis.pack_command(words)  # type: ignore[arg-type] # its stub says one word


def _ask(
    redis: Redis, connections: Sequence[socket.socket], questions: Sequence[Question], batch: int
) -> tuple[Cost, Traffic]:
    calls = list(_calls(questions, batch))
    before, net = rediscost.count(redis), _net(redis)
    _exchange(connections, calls)
    after, sent, received = rediscost.count(redis), *_net(redis)
    traffic = Traffic((sent - net[0]) / len(questions), (received - net[1]) / len(questions))
    return rediscost.cost(before, after, len(questions)), traffic


def _exchange(connections: Sequence[socket.socket], calls: Sequence[bytes]) -> None:
    """Send the calls, one on each connection at a time; InvalidRunError when one is not simply answered."""
    rest = iter(calls)
    while row := list(itertools.islice(rest, len(connections))):
        for connection, call in zip(connections, row, strict=False):
            connection.sendall(call)
        for connection, _ in zip(connections, row, strict=False):
            reply = _reply(connection)
            if isinstance(reply, hiredis.ReplyError) or (isinstance(reply, list) and len(reply) != 1):
                raise InvalidRunError(f"Redis replies {reply!r:.200}")


def _reply(connection: socket.socket) -> object:
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        reader.feed(connection.recv(65536))
    return reply


def _net(redis: Redis) -> tuple[int, int]:
    told = redis.info("stats")
    return int(told["total_net_input_bytes"]), int(told["total_net_output_bytes"])


def _memory(
    redis: Redis, connection: socket.socket, home: Path, requests: Sequence[bytes]
) -> dict[str, float]:
    """Bytes of a key, by what it is of; each filled into an empty Redis."""
    bytes_of = {}
    for kind, settings in _KINDS.items():
        limits = f'[[limit]]\nname = "sender"\nkey = "sender"\n{settings}\n'
        place = home / kind.split(",")[0]
        bytes_of[kind] = _filled(redis, connection, _questions(place, requests, limits, known_again=False))
    limits = f'[[limit]]\nname = "sender"\nkey = "sender"\n{_KINDS["rate"]}\n'
    both = _filled(redis, connection, _questions(home / "repeats", requests, limits))
    bytes_of["question that is known again"] = 2 * both - bytes_of["rate"]
    return bytes_of


def _filled(redis: Redis, connection: socket.socket, questions: Sequence[Question]) -> float:
    redis.cli("FLUSHALL", "SYNC")
    before = int(redis.info("memory")["used_memory"])
    _exchange([connection], list(_calls(questions, 32)))
    return (int(redis.info("memory")["used_memory"]) - before) / int(redis.cli("DBSIZE"))


def _cost_table(costs: dict[int, Cost], traffic: dict[int, Traffic]) -> str:
    return table(
        (
            "questions a call",
            "µs in the script",
            "µs of its process",
            "a core carries",
            "bytes in",
            "out",
        ),
        (
            (
                str(batch),
                f"{cost.script_us:.1f}",
                f"{cost.cpu_us:.1f}",
                f"{cost.most:,.0f}/s",
                f"{traffic[batch].sent:.0f}",
                f"{traffic[batch].received:.0f}",
            )
            for batch, cost in costs.items()
        ),
    )


def _fleet(cost: Cost, traffic: Traffic) -> str:
    asked = HOSTS * EACH
    share, megabits = asked * cost.cpu_us / 1e6, asked * traffic.sent * 8 / 1e6
    return (
        f"{asked:,} in all, nearly every one a call of its own, take {share:.0%} of a core\n"
        f"and {megabits:.0f} Mbit/s to it. A core carries {cost.most / EACH:,.0f} such hosts."
    )


def _memory_table(bytes_of: dict[str, float]) -> str:
    rows = ((kind, f"{size:.0f}", f"{size * 1e6 / 2**20:.0f}") for kind, size in bytes_of.items())
    return table(("key of", "bytes", "MiB for a million"), rows)
