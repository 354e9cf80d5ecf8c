"""Two milters, one with each front, that count From and Reply-To together in Redis."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from mxweir_ops.cli import main
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup
from mxweir_ops.lab.mta import Mta
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.redis import Redis

MARGIN = 30.0
"""Seconds that this machine may hold up an answer by."""

PATIENT = "10s"
"""For what must be counted in Redis, however busy this machine is."""

LIMIT = 40

CONFIG = f"""
[[limit]]
name = "reply-to"
key = "reply_to"
unit = "message"
window = true
rate = "{LIMIT}/week"

[[limit]]
name = "pair"
key = ["from_org", "recipient"]
window = true
rate = "2/week"

[[limit]]
name = "fan-out"
key = "reply_to_org"
distinct = "from"
rate = "500/day"

[log]
format = "json"

[redis]
"""

_NUMBERS = count(1)


class Host:
    """A milter, asked as Postfix asks it; hosts share nothing but Redis."""

    def __init__(self, directory: Path, front: str, url: str, timeout: str) -> None:
        (directory / "state").mkdir(parents=True)
        self.addresses = Addresses.in_directory(directory)
        setup = Setup(
            addresses=self.addresses,
            state_dir=directory / "state",
            domains_file=directory / "domains",
            policyd='deadline = "30s"',
            milter=f'front = "{front}"\ndeadline = "60s"',
            rest=f'{CONFIG}url = "{url}"\ntimeout = "{timeout}"\n',
        )
        (directory / "mxweir.toml").write_text(setup.toml())
        self.daemon = Daemon("milter", directory / "mxweir.toml")

    def take(
        self, reply_to: str, recipients: tuple[bytes, ...] = (b"<b@example.org>",), author: str = ""
    ) -> str:
        """One message of a sender that nobody has seen before; "", or the refusal."""
        number = next(_NUMBERS)
        sender = f"u{number}@a{number}.b{number}.c{number}.d.e.spam{number}.example"
        fields = [(b"From", f" Luck <{author or sender}>".encode()), (b"Reply-To", f" {reply_to}".encode())]
        began = time.monotonic()
        with Mta(self.addresses.milter) as mta:
            mta.negotiate()
            mta.greet()
            *_, (letter, data) = mta.deliver(fields, sender=f"<{sender}>".encode(), recipients=recipients)
        assert time.monotonic() - began < MARGIN
        return data.rstrip(b"\0").decode() if letter == b"y" else ""


@contextmanager
def two_hosts(timeout: str) -> Iterator[tuple[Redis, list[Host]]]:
    """A Redis, and two milters that count in it."""
    with ExitStack() as running:
        directory = running.enter_context(temporary_directory())
        redis = running.enter_context(Redis(directory))
        fronts = ("asyncio", "libmilter")
        made = [Host(directory / front, front, redis.guarded_url, timeout) for front in fronts]
        for host in made:
            running.enter_context(host.daemon)
        yield redis, made


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Redis, list[Host]]]:
    """Shared by tests that each use addresses of their own."""
    with two_hosts(PATIENT) as both:
        yield both


@pytest.fixture
def hosts(both: tuple[Redis, list[Host]]) -> list[Host]:
    return both[1]


def test_a_campaign_over_two_hosts_ends_at_exactly_the_limit_and_hurts_nobody_else(hosts: list[Host]) -> None:
    said = [hosts[number % 2].take("claims@prize.example") for number in range(LIMIT + 10)]
    assert said[:LIMIT] == [""] * LIMIT
    assert all(
        reply.startswith("550 5.7.1 You are sending too much mail (limit reply-to") for reply in said[LIMIT:]
    )
    assert [host.take("other@prize.example") for host in hosts] == ["", ""]


def test_a_message_that_is_refused_for_one_recipient_costs_none(hosts: list[Host]) -> None:
    def take(host: int, *recipients: bytes) -> str:
        return hosts[host].take("a@b.example", recipients, "x@deep.shop.example")

    assert [take(0, b"<full@example.org>"), take(1, b"<full@example.org>")] == ["", ""]
    for host in (0, 1, 0, 1):
        assert "limit pair" in take(host, b"<free@example.org>", b"<full@example.org>")
    assert [take(1, b"<free@example.org>"), take(0, b"<free@example.org>")] == ["", ""]
    assert "limit pair" in take(1, b"<free@example.org>")


def test_every_key_of_the_content_has_an_expiry(both: tuple[Redis, list[Host]]) -> None:
    redis, hosts = both
    hosts[0].take("x@expires.example, y@expires.example", (b"<a@example.org>", b"<b@example.org>"))
    keys = redis.cli("KEYS", "*")
    assert len(keys) >= 2 + 2 + 1
    assert all(redis.cli("PTTL", key) > 0 for key in keys)


def test_a_reset_counter_has_room_again_and_both_milters_tell_who_asks(
    both: tuple[Redis, list[Host]], capsys: pytest.CaptureFixture[str]
) -> None:
    redis, hosts = both

    def take(host: Host) -> str:
        return host.take("a@c.example", (b"<reset@example.org>",), "x@reset.example")

    assert [take(host) for host in hosts] == ["", ""]
    assert all("limit pair" in take(host) for host in (*hosts, *hosts))
    words = [
        "limits",
        "reset",
        "reset.example, reset@example.org",
        "--config",
        str(hosts[0].daemon.config_file),
    ]
    assert main(words) == 0
    assert "pair  2/2  room in " in capsys.readouterr().out
    for host in hosts:
        assert wait_until(lambda host=host: take(host) == "", 60.0)  # type: ignore[misc]
    assert wait_until(lambda: redis.cli("ZCARD", "mxweir:top") == 2, 60.0)


def test_while_redis_is_away_each_milter_counts_by_itself_in_time_and_none_of_it_twice_later() -> None:
    with two_hosts("100ms") as (redis, hosts):
        assert [host.take("claims@prize.example") for host in hosts] == ["", ""]
        redis.freeze()
        alone = [hosts[1].take("claims@prize.example") for _ in range(LIMIT + 1)]
        redis.thaw()
        assert alone[:LIMIT] == [""] * LIMIT
        assert "limit reply-to" in alone[LIMIT]
        # Redis has the two messages from before, and none of those it was asked about while it was frozen.
        assert wait_until(lambda: hosts[1].take("claims@prize.example") == "", 60.0)
        together = 0
        while hosts[0].take("claims@prize.example") == "" and together < 2 * LIMIT:
            together += 1
        assert together >= LIMIT - 6
