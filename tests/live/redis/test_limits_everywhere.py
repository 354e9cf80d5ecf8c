"""Limits of two hosts in each topology, by the user that is shipped: exact, in their order, of every kind."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mxweir.config import loads
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.shared import Shared
from mxweir.testing import SettableClock, question
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.redis import Redis
from mxweir_ops.lab.redis_topologies import Cluster, Watched

RULES = """
[[limit]]
name = "sender"
key = "sender"
rate = "3/day"

[[limit]]
name = "mailbox"
key = "recipient"
rate = "4/day"
window = true

[[limit]]
name = "fan-out"
key = "client_network"
rate = "2/day"
distinct = "sender_domain"
"""

TIMEOUT = 10.0


@pytest.fixture(scope="module", params=["single", "valkey", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        server: Any = {
            "single": lambda: Redis(directory),
            "valkey": lambda: Redis(directory, valkey=True),
            "sentinel": lambda: Watched(directory),
            "cluster": lambda: Cluster(directory),
        }[request.param]()
        yield stack.enter_context(server).guarded_url


class Host:
    """One process's limits; asks one question after the other."""

    def __init__(self, asker: Any) -> None:
        limits = Limits(loads(RULES).limit, Folder())
        self._shared = Shared(limits, asker.servers, "mxweir", SettableClock(), asker.told, TIMEOUT)
        self._number = 0

    async def rule(self, client: str, sender: str, recipient: str) -> str:
        """The limit that refuses, or ""."""
        self._number += 1
        facts = question(client, sender, recipient, instance=f"{id(self)}.{self._number}")
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._shared.decide([facts], lambda outcomes: answer.set_result(outcomes[0]))
        refusal = (await answer).refusal
        return refusal.limit.name if refusal else ""


async def test_two_hosts_count_as_one_in_order_and_each_kind_of_limit(url, connected: Callable[..., Any]):
    one, other = [Host(await connected(url)) for _ in range(2)]
    hosts = [one, other] * 4
    rules = [await host.rule("192.0.2.1", "a@a.example", f"r{n}@b.example") for n, host in enumerate(hosts)]
    assert rules == [""] * 3 + ["sender"] * 5
    # What the sender's limit refused was charged to no mailbox: r3 has all of its four.
    rules = [
        await host.rule(f"198.51.{n}.1", f"s{n}@c{n}.example", "r3@b.example") for n, host in enumerate(hosts)
    ]
    assert rules == [""] * 4 + ["mailbox"] * 4
    # Nor to the network: a third domain is refused, and the two that were there are not.
    rules = [
        await host.rule("203.0.113.9", f"s{n}@d{n % 4}.example", f"t{n}@b.example")
        for n, host in enumerate(hosts)
    ]
    assert rules == ["", "", "fan-out", "fan-out"] * 2
