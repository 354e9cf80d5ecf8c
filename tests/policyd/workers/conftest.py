"""A policy daemon of two worker processes, which count in a private Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import connections
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import MissingError, wait_until
from mxweir_ops.lab.redis import Redis

if TYPE_CHECKING:
    from tests.policyd.conftest import Policyd

SLACK = 20.0
"""Seconds that a busy machine may add to whatever has a bound."""

Connect = Callable[["Policyd"], dict[int, PolicyClient]]


@pytest.fixture(scope="package")
def redis() -> Iterator[Redis]:
    """One for all daemons; each has a prefix of its own."""
    with temporary_directory() as directory:
        try:
            with Redis(directory) as server:
                yield server
        except MissingError as error:
            pytest.skip(str(error))


def made(kind: "type[Policyd]", directory: Path, redis: Redis) -> "Policyd":
    # The timeout is for a busy machine: what has to be counted is to be counted in one place.
    counting = f'\n[redis]\nurl = "{redis.unix_url}"\ntimeout = "2s"\nprefix = "{directory.name}"\n'
    return kind(directory, always=counting, workers="2", deadline='"3s"')


@pytest.fixture(scope="package")
def team(kind: "type[Policyd]", redis: Redis) -> Iterator["Policyd"]:
    """The one that most tests share: none may stop it, harm it or change its configuration."""
    with temporary_directory() as directory, made(kind, directory, redis) as daemon:
        yield daemon


@pytest.fixture
def own(kind: "type[Policyd]", redis: Redis) -> Iterator["Policyd"]:
    """A daemon that is the test's own; not started yet."""
    with temporary_directory() as directory:
        daemon = made(kind, directory, redis)
        try:
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture
def connected() -> Iterator[Connect]:
    """Makes one connection to each worker of a daemon, by the worker's process id."""
    with ExitStack() as stack:

        def connect(daemon: "Policyd") -> dict[int, PolicyClient]:
            workers = daemon.workers
            assert wait_until(lambda: "\nmxweir_policy_connections 0.0" in daemon.page("/metrics")[1], SLACK)
            found: dict[int, PolicyClient] = {}
            # Each is taken before the next is made: a connection is known by the worker that had none.
            for _ in range(len(workers)):
                client = stack.enter_context(daemon.client())
                assert client.ask(sender=f"{uuid4().hex}@connected.example") == "DUNNO"
                have = [pid for pid in workers if connections(pid, daemon.addresses.policy)]
                (pid,) = set(have) - found.keys()
                found[pid] = client
            assert set(found) == set(workers)
            return found

        yield connect
