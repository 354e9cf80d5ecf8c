"""A Redis for the tests of a file, and limits that are counted there."""

from collections.abc import Callable, Iterator

import pytest

from mxweir.config import LimitRule
from mxweir_ops.lab.counted import Counted, Direct
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.redis import Redis


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """A Redis that the tests of a file share."""
    with temporary_directory() as directory, Redis(directory) as redis:
        yield redis


@pytest.fixture(scope="module")
def valkey() -> Iterator[Redis]:
    """A Valkey likewise."""
    with temporary_directory() as directory, Redis(directory, valkey=True) as server:
        yield server


@pytest.fixture(scope="module", params=["together", "apart", "valkey"])
def servers(server: Redis, request: pytest.FixtureRequest) -> Iterator[Direct]:
    """It, asked as one server and as a Cluster is; and Valkey, as one server."""
    redis = request.getfixturevalue("valkey") if request.param == "valkey" else server
    direct = Direct(redis, clustered=request.param == "apart")
    yield direct
    direct.close()


@pytest.fixture
def counted(servers: Direct) -> Callable[..., Counted]:
    """Makes limits of rules, as one process has them, in a Redis that is empty unless told otherwise."""

    def made(*rules: LimitRule, empty: bool = True) -> Counted:
        if empty:
            servers.send("FLUSHALL")
        return Counted(servers, rules)

    return made
