"""Fifty hosts that lost their PostgreSQL together come back to it spread over time."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from mxweir.config.sections import Postgres
from mxweir.events import Event
from mxweir_ops.lab.host import prepare
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postgresql import PostgreSQL
from mxweir_ops.lab.process import wait_until
from mxweir_policyd.relaydomains.asking import Asker
from mxweir_policyd.relaydomains.confirm import Condition, Confirmations, Rules

HOSTS = 50
LET_IN = re.compile(
    r"^(\S+ \S+) \S+ \[\d+\] LOG:  connection authorized: .* application_name=mxweir$", re.MULTILINE
)


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    settings = {"log_connections": "on", "max_connections": "80"}
    with temporary_directory() as directory, PostgreSQL(directory, settings) as server:
        yield server


def connected(server: PostgreSQL) -> list[datetime]:
    """When connections of hosts were let in."""
    return [datetime.fromisoformat(found) for found in LET_IN.findall(server.log())]


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait in a thread, while the loop turns."""
    assert await asyncio.to_thread(wait_until, true, seconds)


async def test_fifty_hosts_come_back_spread_over_time_and_all_of_them(server: PostgreSQL) -> None:
    dsn = server.dsn(server.new_database())
    prepare(dsn)
    events: list[Event] = []
    askers = [
        Asker(
            Postgres(dsn=dsn),
            Confirmations(Rules(), lambda: Condition(0.0, False), lambda _: None),
            0.25,
            events.append,
        )
        for _ in range(HOSTS)
    ]
    tasks = [asyncio.ensure_future(asker.run()) for asker in askers]
    await until(lambda: len(connected(server)) >= HOSTS)
    await asyncio.to_thread(server.stop)
    await until(lambda: all(asker.away for asker in askers))
    await asyncio.sleep(5)  # an outage, in which each tries several times
    before = len(connected(server))
    await asyncio.to_thread(server.start)
    await until(lambda: not any(asker.away for asker in askers))
    back = connected(server)[before:]
    assert len(back) == HOSTS
    a_second = Counter(int((moment - back[0]).total_seconds()) for moment in back)
    assert max(a_second.values()) <= HOSTS // 2, a_second
    assert len(a_second) >= 3, a_second
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
