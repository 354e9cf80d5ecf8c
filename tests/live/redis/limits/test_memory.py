"""What keys take in Redis, and what happens when there is no room for them."""

from collections.abc import Callable, Iterator

import pytest

from mxweir.config import loads
from mxweir.redis.errors import RedisError
from mxweir.testing import question
from mxweir_bench.redismemory import KINDS, Kind, fill, rows
from mxweir_ops.lab.counted import Counted, Direct
from mxweir_ops.lab.redis import Redis

PROMISED = {
    "rate": 256,
    "quota, used once": 256,
    "quota, used all day long": 400,
    "one value": 256,
    "10 values": 640,
    "100 values": 4200,
    "200 values": 30_000,
    "rate, and a question to be known again": 320,
}
"""Bytes a key, as docs/limits-in-redis.md has them."""

RULES = """\
[[limit]]
name = "day"
key = "sender_org"
rate = "2/day"
window = true

[[limit]]
name = "sender"
key = "sender"
rate = "600/minute"

[[limit]]
name = "fanout"
key = "sender_org"
rate = "50000/day"
distinct = "client_network"
"""


TABLES = 24 + 8 * 4
"""Bytes that a key's expiry takes, and its places in two hash tables that may be half empty (dict.h)."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_key_takes_no_more_memory_than_the_documents_promise(kind: Kind, server: Redis):
    # By Redis's account of each key: of a few keys, the whole memory says what connections happen to take.
    fill(server, kind, 10)
    each = [
        int(server.cli("MEMORY", "USAGE", key, "SAMPLES", 0)) + TABLES
        for key in server.cli("KEYS", "mxweir:*")
    ]
    assert len(each) == 10 + 2 * kind.instance
    assert PROMISED[kind.name] * 0.7 < sum(each) / 10 <= PROMISED[kind.name]


@pytest.fixture
def full(server: Redis) -> Iterator[Callable[[str, int], None]]:
    """Gives Redis a policy, and so much more memory than it uses."""

    def to(policy: str, more: int) -> None:
        server.cli("CONFIG", "SET", "maxmemory-policy", policy)
        server.cli("CONFIG", "SET", "maxmemory", int(server.info("memory")["used_memory"]) + more)

    yield to
    server.cli("CONFIG", "SET", "maxmemory", 0)


@pytest.fixture
def direct(server: Redis) -> Iterator[Direct]:
    """An empty Redis, asked as one server."""
    servers = Direct(server)
    servers.send("FLUSHALL")
    yield servers
    servers.close()


def test_where_memory_is_full_and_nothing_may_go_the_processs_limits_decide(direct, full, server):
    limits = Counted(direct, loads(RULES).limit).at(0)
    limits.decide(question())
    keys = direct.send("DBSIZE")
    full("noeviction", -100_000)
    said = [limits.decide(question(instance=f"i{i}"))[0].refusal for i in range(4)]
    assert [bool(refusal) for refusal in said] == [False, False, True, True]
    assert isinstance(oom := direct.send("SET", "any", ""), RedisError)
    assert oom.kind == "full"
    assert {getattr(event, "by", event) for event in limits.told.events} == {"redis", "process"}
    assert direct.send("DBSIZE") == keys
    assert limits.figures(question()) == {"day": "1/2", "sender": "1/600", "fanout": "1/50000"}
    server.cli("CONFIG", "SET", "maxmemory", 0)
    assert limits.decide(question(instance="later"))[0].refusal is None
    assert limits.figures(question())["day"] == "2/2"


def test_where_memory_is_full_and_keys_may_go_those_go_first_that_would_expire_first(direct, full, server):
    limits = Counted(direct, loads(RULES).limit).at(0)
    limits.decide(question(), question(), question())
    full("volatile-ttl", 1_000_000)
    flood = Counted(
        direct, loads(RULES.partition("\n\n")[2].replace("sender_org", "client_address")).limit
    ).at(0)
    for row in rows(12_000):
        flood.decide(*row)
    assert int(server.info("stats")["evicted_keys"]) > 1000
    assert limits.figures(question())["day"] == "2/2"
    assert "process" not in {getattr(event, "by", "") for event in flood.told.events}
    assert direct.keys_without_expiry() == []
