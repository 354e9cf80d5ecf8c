"""Worker processes beside PostgreSQL: one follower keeps the replica, and each worker asks it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from mxweir_ops.lab.asking import USUAL, PolicyClient
from mxweir_ops.lab.host import PATIENCE, Host, add, prepare, remove
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.redis import Redis
from mxweir_policyd.relaydomains.mirror import Mirror


@pytest.fixture
def host(database: str) -> Iterator[Host]:
    prepare(database, "one.example")
    with temporary_directory() as place, Redis(place) as redis, temporary_directory() as directory:
        made = Host(
            directory,
            database,
            domains='max_shrink = "100%"\nunknown_for = "5m"\n'
            f'[redis]\nurl = "{redis.unix_url}"\ntimeout = "2s"\n',
            policyd='workers = 2\ndeadline = "5s"',
        )
        with made:
            yield made


def answer(client: PolicyClient, domain: str) -> str:
    return client.ask(**USUAL | {"recipient": f"x@{domain}", "policy_context": "relay"}).split()[0]


def becomes(client: PolicyClient, domain: str, expected: str) -> bool:
    return wait_until(lambda: answer(client, domain) == expected, PATIENCE)


def test_one_follower_serves_all_workers_and_each_confirms_what_is_new(host: Host, database: str) -> None:
    assert host.follows()
    with ExitStack() as stack:
        clients = [stack.enter_context(PolicyClient(host.addresses.policy)) for _ in range(2)]
        for domain, expected in (("one.example", "DUNNO"), ("foreign.example", "550")):
            assert all(becomes(client, domain, expected) for client in clients)
        asked = 'mxweir_relay_confirmations_total{outcome="unknown"}'
        before = host.metric(asked)
        for client in clients:
            assert answer(client, "new.example") == "550"
        assert host.metric(asked) - before == 2.0
        add(database, "new.example")
        assert all(becomes(client, "new.example", "DUNNO") for client in clients)
        remove(database, "one.example")
        assert all(becomes(client, "one.example", "550") for client in clients)
    assert wait_until(partial(host.is_at, "following"), PATIENCE)
    assert len(host._followers()) == 1
    assert len(host.workers) == 2


def test_a_notification_clears_what_each_worker_remembers_as_unknown_also_while_the_replica_is_frozen(
    host: Host, database: str
) -> None:
    assert host.follows()
    with closing(Mirror(host.state)) as mirror:
        mirror.freeze(1.0)
    assert host.is_at("frozen")
    with ExitStack() as stack:
        clients = [stack.enter_context(PolicyClient(host.addresses.policy)) for _ in range(2)]
        assert [answer(client, "new.example") for client in clients] == ["550", "550"]
        add(database, "new.example")
        assert all(becomes(client, "new.example", "450") for client in clients)
