"""The policy daemon with a real Redis: hosts count together, and each by itself when Redis is in trouble."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mxweir_ops.cli import main
from mxweir_ops.lab.asking import PolicyClient
from mxweir_ops.lab.daemons import Addresses, Daemon, Setup, get
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.redis import Redis

pytestmark = pytest.mark.live

DEADLINE = 2.0
MARGIN = 20.0
"""Seconds that this machine may hold up an answer by."""

PATIENT = 'timeout = "10s"'
"""For what must be counted in Redis, however busy this machine is."""

HASTY = 'timeout = "500ms"'
"""For what must not wait long for a Redis in trouble."""

LIMITS = """
[[limit]]
name = "sender"
key = "sender"
rate = "3/day"

[[limit]]
name = "fan"
key = "client_network"
rate = "2/hour"
distinct = "sender_org"
"""


class Host(Daemon):
    """A policy daemon that counts in Redis; hosts share nothing else."""

    def __init__(self, directory: Path, url: str, limits: str, redis: str) -> None:
        directory.mkdir()
        (directory / "state").mkdir()
        (directory / "domains").write_text("example.org\n")
        self.addresses = Addresses.in_directory(directory)
        self._directory, self._redis = directory, f'[redis]\nurl = "{url}"\n{redis}\n'
        self._asked = 0
        super().__init__("policyd", directory / "mxweir.toml")
        self.configure(limits)

    def configure(self, limits: str) -> None:
        """Write the configuration with these limits."""
        setup = Setup(
            addresses=self.addresses,
            state_dir=self._directory / "state",
            domains_file=self._directory / "domains",
            policyd=f'deadline = "{30 if PATIENT in self._redis else DEADLINE:g}s"',
            rest=f'{limits}\n{self._redis}[log]\nformat = "json"\n',
        )
        self.config_file.write_text(setup.toml())

    def ask(self, number: int, **attributes: str) -> str:
        """Ask about a recipient of the message of that number, and be answered in time."""
        with PolicyClient(self.addresses.policy) as client:
            began = time.monotonic()
            answer = client.ask(instance=f"{number}.1.1.0", **attributes)
            assert PATIENT in self._redis or time.monotonic() - began < DEADLINE + MARGIN
            return answer

    def asks_redis(self) -> bool:
        """Whether Redis answers one more question, of a sender of its own."""
        before = self.answered_by("redis")
        self._asked += 1
        name = f"s{self._asked}.example"
        self.ask(1000 + self._asked, sender=f"x@{name}", client_address=f"198.51.{self._asked}.1")
        return self.answered_by("redis") > before

    def answered_by(self, who: str) -> float:
        """How many questions to limits were answered by Redis, by its refusals of before, by the process."""
        page = get(self.addresses.policyd_http, "/metrics")[1]
        found = re.search(rf'^mxweir_limit_questions_total{{by="{who}"}} (\S+)$', page, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture
def redis() -> Iterator[Redis]:
    with temporary_directory() as directory, Redis(directory) as server:
        yield server


@pytest.fixture
def host(redis: Redis) -> Iterator[Callable[..., Host]]:
    """Starts one more host, by another name each time."""
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())

        def start(name: str = "a", limits: str = LIMITS, redis_lines: str = PATIENT) -> Host:
            return stack.enter_context(Host(directory / name, redis.guarded_url, limits, redis_lines))

        yield start


def verdicts(answers: list[str]) -> str:
    """`pppr`: which of them passed, which were refused."""
    return "".join("p" if answer == "DUNNO" else "r" for answer in answers)


def test_two_hosts_count_in_one_place(host):
    one, two = host("one"), host("two")
    answers = [each.ask(number) for number, each in enumerate((one, two, one, two, one))]
    assert verdicts(answers) == "ppprr"
    assert answers[3].startswith("550 5.7.1 You are sending too much mail (limit sender, 3/day)")


def test_a_question_that_is_repeated_to_another_host_is_counted_once(host):
    one, two = host("one"), host("two")
    assert verdicts([each.ask(1) for each in (one, two, one, two, one)]) == "ppppp"
    assert verdicts([two.ask(number) for number in (2, 3, 4)]) == "ppr"


def test_different_values_are_counted_over_all_hosts(host):
    one, two = host("one"), host("two")
    senders = ["a@a.example", "b@b.example", "c@x.c.example", "d@a.example"]
    asked = zip((one, two, one, two), range(4), senders, strict=True)
    answers = [each.ask(number, sender=sender) for each, number, sender in asked]
    assert verdicts(answers) == "pprp"


def test_a_daemon_that_starts_again_has_forgotten_nothing(host):
    one = host()
    assert verdicts([one.ask(number) for number in range(3)]) == "ppp"
    one.stop()
    one.start()
    assert verdicts([one.ask(4)]) == "r"


def test_an_explanation_has_the_figures_of_redis_and_charges_nothing(host, capsys):
    one = host()
    one.ask(1)
    for _ in range(2):
        words = ["explain", "--config", str(one.config_file), "--sender", "bert@sender.example"]
        words += ["--recipient", "anna@example.org", "--client", "203.0.113.9"]
        assert main(words) == 0
        assert " 1/3 " in capsys.readouterr().out


def test_a_reload_with_another_rate_goes_on_with_what_was_counted(host):
    one = host()
    assert verdicts([one.ask(number) for number in range(4)]) == "pppr"
    one.configure(LIMITS.replace("3/day", "5/day"))
    one.reload()
    one.wait_for(event="configuration reloaded")
    assert verdicts([one.ask(number) for number in range(10, 13)]) == "ppr"


def test_a_daemon_starts_and_counts_by_itself_where_there_is_no_redis(redis, host):
    redis.stop()
    one = host()
    assert verdicts([one.ask(number) for number in range(4)]) == "pppr"
    assert len(one.records(event="Redis not available")) == 1


def stopped(redis: Redis) -> Iterator[None]:
    redis.stop()
    yield
    redis.start()


def killed(redis: Redis) -> Iterator[None]:
    redis.kill()
    yield
    redis.start()


def frozen(redis: Redis) -> Iterator[None]:
    redis.freeze()
    yield
    redis.thaw()


def full(redis: Redis) -> Iterator[None]:
    redis.cli("CONFIG", "SET", "maxmemory", "1")
    yield
    redis.cli("CONFIG", "SET", "maxmemory", "0")


def read_only(redis: Redis) -> Iterator[None]:
    redis.cli("REPLICAOF", "127.0.0.1", "1")
    yield
    redis.cli("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("trouble", [stopped, killed, frozen, full, read_only])
def test_in_trouble_every_answer_comes_in_time_and_limits_go_on_until_redis_is_back(redis, host, trouble):
    one = host(redis_lines=HASTY)
    assert verdicts([one.ask(1, sender="other@a.example")]) == "p"
    for _ in trouble(redis):
        answers = [one.ask(number) for number in range(10, 16)]
        assert verdicts(answers) == "ppprrr"
        assert one.wait_for(event="Redis not available")
    assert wait_until(lambda: one.asks_redis() and one.records(event="Redis available again") != [], 60.0)
    assert len(one.records(event="Redis not available")) == 1


def test_under_a_flood_from_one_sender_redis_is_spared(redis, host):
    one = host(limits=LIMITS.replace("3/day", "60/hour"))
    redis.cli("CONFIG", "RESETSTAT")
    answers = [one.ask(number) for number in range(1000)]
    assert answers.count("DUNNO") >= 60
    assert redis.calls("evalsha") <= 60 + 0.05 * 940
