"""Redis over TLS: one server, sentinels, a Cluster; certificates that are right and wrong."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxweir.config import Redis as Settings
from mxweir.redis.servers import connect
from mxweir.redis.url import parse_url
from mxweir.service import SettingError
from mxweir.testing import Recorder
from mxweir_ops.lab.certificates import Certificate, certificate
from mxweir_ops.lab.place import free_port, temporary_directory
from mxweir_ops.lab.redis import Redis
from mxweir_ops.lab.redis_topologies import Cluster, Watched, port_of


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with temporary_directory() as path:
        yield path


@pytest.fixture(scope="module")
def ours(directory: Path) -> Certificate:
    return certificate(directory, "ours", "IP:127.0.0.1", "DNS:redis.example.org")


@pytest.fixture(scope="module")
def other(directory: Path) -> Certificate:
    return certificate(directory, "other")


def lines(ours: Certificate, clients: str) -> dict[str, str]:
    return {
        "tls-port": str(free_port()),
        "tls-cert-file": str(ours.cert),
        "tls-key-file": str(ours.key),
        "tls-ca-cert-file": str(ours.cert),
        "tls-auth-clients": clients,
    }


@pytest.fixture(scope="module")
def guarded(directory: Path, ours: Certificate) -> Iterator[Redis]:
    """Wants a certificate of its clients."""
    with Redis(directory, lines(ours, "yes")) as server:
        yield server


def url(server: Redis, host: str = "127.0.0.1") -> str:
    return f"rediss://mxweir:lab%20password@{host}:{server.settings['tls-port']}"


async def test_with_our_certificate_and_password_all_works_over_tls(guarded, ours, connected):
    asker = await connected(url(guarded), ca=ours.cert, cert=ours.cert, key=ours.key)
    assert await asker.ask("SET", "mxweir:tls", "1", key="mxweir:tls") == b"OK"
    heard: list[bytes] = []
    times: list[int] = []
    asker.servers.subscribe("mxweir:news", heard.append, lambda: times.append(1))
    await asker.until(lambda: bool(times))
    guarded.cli("PUBLISH", "mxweir:news", "x")
    await asker.until(lambda: heard == [b"x"])


async def test_without_a_certificate_that_the_server_wants_there_is_no_connection(guarded, ours, connected):
    asker = await connected(url(guarded), ca=ours.cert)
    assert (await asker.eval()).kind == "unavailable"
    assert "Redis not available" in asker.names()


async def test_a_server_that_nobody_has_signed_for_is_not_told_the_password(guarded, other, ours, connected):
    asker = await connected(url(guarded), ca=other.cert, cert=ours.cert, key=ours.key)
    assert (await asker.eval()).kind == "unavailable"
    assert "certificate verify failed" in asker.detail("Redis not available").lower()


async def test_the_name_of_the_certificate_is_looked_at_and_can_be_another_than_the_hosts(
    guarded, ours, connected
):
    given = {"ca": ours.cert, "cert": ours.cert, "key": ours.key}
    wrong = await connected(url(guarded, "localhost"), **given)
    assert "hostname mismatch" in wrong.detail("Redis not available").lower()
    right = await connected(url(guarded, "localhost"), tls_name="redis.example.org", **given)
    assert await right.ask("PING") == b"PONG"


async def test_a_failover_is_followed_over_tls_to_sentinels_and_masters(directory, ours, connected):
    more = [lines(ours, "no") | {"tls-replication": "yes"} for _ in range(5)]
    with temporary_directory() as place, Watched(place, more=more) as watched:
        login = "mxweir:lab%20password"
        hosts = ",".join(f"127.0.0.1:{port_of(sentinel)}" for sentinel in watched.sentinels)
        logins = "sentinel_user=mxweir&sentinel_password=lab%20password"
        asker = await connected(f"rediss+sentinel://{login}@{hosts}/lab?{logins}", ca=ours.cert)
        assert await asker.ask("SET", "mxweir:tls", "1", key="mxweir:tls") == b"OK"
        watched.master.kill()
        await asker.until(lambda: watched.sentinels[0].chosen().port == port_of(watched.replica), 30)
        async with asyncio.timeout(30):
            while await asker.ask("PING") != b"PONG":  # noqa: ASYNC110 - the server is not in this process
                await asyncio.sleep(0.05)
        assert watched.replica.info("replication")["role"] == "master"


async def test_a_cluster_is_followed_over_tls_by_the_user_that_is_shipped(directory, ours, connected):
    more = [lines(ours, "no") | {"tls-cluster": "yes"} for _ in range(3)]
    with temporary_directory() as place, Cluster(place, more=more):
        address = f"rediss+cluster://mxweir:lab%20password@127.0.0.1:{more[0]['tls-port']}"
        asker = await connected(address, ca=ours.cert)
        for number in range(20):
            key = f"mxweir:{number}"
            assert await asker.ask("SET", key, "1", key=key) == b"OK"
        ports = {master.endpoint.port for master in asker.servers.masters()}
        assert ports == {int(each["tls-port"]) for each in more}


@pytest.mark.parametrize("setting", ["ca", "cert"])
def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path, setting):
    path = tmp_path / "no.pem"
    settings = {"ca": path} if setting == "ca" else {"cert": path, "key": path}
    for text in (None, "nonsense"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(SettingError, match=rf"^redis\.{setting}.* cannot be read") as error:
            connect(Settings(url=parse_url("rediss://h"), **settings), Recorder())
        assert "\n" not in str(error.value)
