import gc
import pickle
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mxweir import __version__
from mxweir.config import Log, loads
from mxweir.domains.record import FROM_COMMAND, Record
from mxweir.events import Decided, Decision, Observed, Scanned, Trouble, notice, tell_all
from mxweir.log import LogObserver
from mxweir.metrics import ANSWER_SECONDS, Metrics, PolicyMetrics, ScanMetrics
from mxweir.ratelimit.rate import Rate
from mxweir.testing import SettableClock, question
from mxweir_policyd.protocol import Request
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.worker import build_pipeline

PASS = Decision("pass", "DUNNO")


class _All(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self.metrics.collect()


def page(metrics: Metrics) -> str:
    """What a scrape gets."""
    registry = CollectorRegistry()
    registry.register(_All(metrics))
    return generate_latest(registry).decode()


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The scrape as Prometheus reads it: name and labels of each series, and its value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page(metrics))
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def decided(decision: Decision, seconds: float = 0.0004) -> Decided:
    return Decided(question(), decision, seconds)


def test_decisions_are_counted_by_check_rule_and_action():
    metrics = Metrics("policyd")
    tell = tell_all(PolicyMetrics(metrics).handlers())
    refused = Decision("reject", "550 5.7.1 no", "limits", "sender", "a@a.example", "3/3")
    for decision in (PASS, PASS, refused, refused._replace(verdict="defer", check="relay", rule="no answer")):
        tell(decided(decision))
    name = "mxweir_policy_decisions_total"
    assert value(metrics, name, check="", rule="", action="pass") == 2
    assert value(metrics, name, check="limits", rule="sender", action="reject") == 1
    assert value(metrics, name, check="relay", rule="no answer", action="defer") == 1


def test_what_is_only_observed_is_counted_as_such_beside_the_answer():
    metrics = Metrics("policyd")
    tell = tell_all(PolicyMetrics(metrics).handlers())
    tell(decided(PASS._replace(observed=(Observed("trial", "k", "1/1"), Observed("other", "k", "2/2")))))
    name = "mxweir_policy_decisions_total"
    assert value(metrics, name, check="limits", rule="trial", action="observe") == 1
    assert value(metrics, name, check="limits", rule="other", action="observe") == 1
    assert value(metrics, name, check="", rule="", action="pass") == 1


@given(st.lists(st.floats(0, 3), max_size=50))
def test_a_histogram_counts_each_time_in_every_bucket_that_holds_it(times):
    metrics = Metrics("policyd")
    tell = tell_all(PolicyMetrics(metrics).handlers())
    for seconds in times:
        tell(decided(PASS, seconds))
    shown = samples(metrics)
    name = "mxweir_policy_answer_seconds"
    for bound in (*ANSWER_SECONDS, float("inf")):
        label = "+Inf" if bound == float("inf") else str(bound)
        assert shown[f"{name}_bucket", (("le", label),)] == sum(seconds <= bound for seconds in times)
    assert shown[f"{name}_count", ()] == len(times)
    assert shown[f"{name}_sum", ()] == pytest.approx(sum(times))


SCANNED = Scanned("4XyZ", "192.0.2.1", "a@a.example", 1, "ham", "spamd", 1.0, 5.0, (), "", 0.3, 4096)


def test_scans_are_counted_by_engine_and_outcome_and_unscanned_mail_by_its_reason():
    metrics = Metrics("milter")
    tell = tell_all(ScanMetrics(metrics).handlers())
    tell(SCANNED)
    tell(SCANNED._replace(outcome="unscanned", reason="deadline", score=None))
    tell(SCANNED._replace(outcome="skipped", engine="", seconds=0.0))
    assert value(metrics, "mxweir_milter_messages_total", engine="spamd", outcome="ham") == 1
    assert value(metrics, "mxweir_milter_messages_total", engine="", outcome="skipped") == 1
    assert value(metrics, "mxweir_milter_unscanned_total", reason="deadline") == 1
    # What no engine saw took no time to scan.
    assert value(metrics, "mxweir_milter_scan_seconds_count") == 2


def test_troubles_are_counted_by_kind_and_notices_are_not():
    metrics = Metrics("policyd")
    tell = tell_all(PolicyMetrics(metrics).handlers())
    for detail in ("one", "two"):
        tell(Trouble("policy protocol error", detail))
    tell(notice("started"))
    shown = {key: number for key, number in samples(metrics).items() if key[0] == "mxweir_troubles_total"}
    assert shown == {
        ("mxweir_troubles_total", (("daemon", "policyd"), ("what", "policy protocol error"))): 2.0
    }


def test_a_gauge_is_read_at_each_scrape():
    metrics = Metrics("policyd")
    held = [3.0]
    metrics.gauge("mxweir_things", "Things.", ["kind"], lambda: [(("a",), held[0])])
    assert value(metrics, "mxweir_things", kind="a") == 3
    held[0] = 5.0
    assert value(metrics, "mxweir_things", kind="a") == 5


def two_processes(gauges: tuple[dict[str, float], dict[str, float]] = ({}, {})) -> tuple[Metrics, Metrics]:
    """The metrics of two processes, of which the first shows what both counted; gauges by their label."""
    made = Metrics("policyd"), Metrics("policyd")
    for metrics, shown in zip(made, gauges, strict=True):
        for name, summed in (("mxweir_sum", True), ("mxweir_highest", False)):
            read = partial(lambda values: [((key,), value) for key, value in values.items()], shown)
            metrics.gauge(name, "Things.", ["kind"], read, summed=summed)
    first, second = made
    first.others = lambda: [pickle.loads(pickle.dumps(second.figures()))]
    return made


def test_of_two_processes_the_counters_and_histograms_are_added_up():
    made = two_processes()
    for metrics, seconds in zip(made, (0.0004, 0.02), strict=True):
        tell = tell_all(PolicyMetrics(metrics).handlers())
        tell(decided(PASS, seconds))
        tell(Trouble("policy protocol error", "", times=3))
    made[1].counter("mxweir_only_there", "Things.").add()
    shown = made[0]
    assert value(shown, "mxweir_policy_decisions_total", check="", rule="", action="pass") == 2
    assert value(shown, "mxweir_troubles_total", daemon="policyd", what="policy protocol error") == 6
    assert value(shown, "mxweir_only_there_total") == 1
    assert value(shown, "mxweir_policy_answer_seconds_bucket", le="0.0005") == 1
    assert value(shown, "mxweir_policy_answer_seconds_count") == 2
    assert value(shown, "mxweir_policy_answer_seconds_sum") == pytest.approx(0.0204)


def test_of_two_processes_the_gauges_are_summed_or_the_highest_counts():
    shown, _ = two_processes(({"a": 3.0, "b": 1.0}, {"a": 2.0, "c": 5.0}))
    for name, expected in (("mxweir_sum", (5, 1, 5)), ("mxweir_highest", (3, 1, 5))):
        assert tuple(value(shown, name, kind=kind) for kind in "abc") == expected


def test_the_version_is_shown():
    assert value(Metrics("policyd"), "mxweir_build_info", version=__version__) == 1


def test_every_family_has_a_help_text_and_a_name_of_ours_by_prometheus_conventions():
    metrics = Metrics("policyd")
    PolicyMetrics(metrics)
    ScanMetrics(metrics)
    families = list(text_string_to_metric_families(page(metrics)))
    assert len(families) == 12
    for family in families:
        assert family.name.startswith("mxweir_")
        assert family.documentation.endswith(".")
        assert family.type != "histogram" or family.name.endswith("_seconds")


# A storm: everything that a stranger chooses is another one each time

RULES = """
[policyd]
max_keys = 4096

[[access]]
block = "sender_org"
value = "blocked.example"

[[limit]]
name = "observed"
key = "client_network"
rate = "1/day"
mode = "observe"

[[limit]]
name = "client"
key = "client_network"
rate = "2/day"

[[limit]]
name = "sender"
key = ["sender", "helo"]
rate = "2/day"

[[limit]]
name = "mailbox"
key = "recipient"
rate = "20/day"
refuse = "defer"
"""

ROUND = 16_384
"""Folds of a kind that are remembered: after as many questions, memory is in the same phase again."""


def storm(first: int, count: int) -> Iterator[Request]:
    """Questions of which each comes from another client, sender and domain; some for us, some refused."""
    for i in range(first, first + count):
        client = b"2001:db8:%x:%x::1" % (i >> 16, i & 65535)
        sender = b"user%d@a%d.b.spam%d.example" % (i, i, i)
        recipient = b"r%d@%s" % (i, b"ours.example" if i % 4 else b"foreign%d.example" % i)
        helo = b"helo%d.example" % i
        if i % 16 == 0:
            sender = b"user%d@x%d.blocked.example" % (i, i)
        elif i % 16 == 1:
            sender = b'\xff\x1b[2J%d caf\xc3\xa9"=@%d.b\xc3\xbccher.example' % (i, i)
        elif i % 16 == 2:
            helo += b"x" * 600
        elif i % 16 in (7, 9):
            # Another client each time, out of a few networks.
            client = b"172.%d.%d.%d" % (16 + (i >> 16), (i >> 8) & 255, i & 255)
        instance = b"%x.1" % i
        yield Request(b"RCPT", client, helo, sender, recipient, b"", instance, b"%d" % i, b"u%d" % i, b"")


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path)
    replica.add([Record("ours.example")], FROM_COMMAND)
    yield replica
    replica.close()


def test_a_storm_of_unique_senders_domains_and_clients_adds_no_series_and_no_memory(replica):
    clock = SettableClock()
    metrics = Metrics("policyd")
    with Path("/dev/null").open("w") as nowhere:
        log = LogObserver(Log(decisions=Rate(20, 1.0)), clock, "policyd", nowhere)
        observe = tell_all(PolicyMetrics(metrics).handlers(), log.handlers())
        pipeline = build_pipeline(loads(RULES), replica)
        series, blocks = [], []
        for number in range(7):
            for request in storm(number * ROUND, ROUND):
                facts = pipeline.facts(request)
                observe(Decided(facts, pipeline.decide(facts, clock()), 0.0004))
                clock.advance(0.001)
            pipeline.limits.tick(clock())
            replica.tick()
            log.tick()
            gc.collect()
            series.append(set(samples(metrics)))
            blocks.append(sys.getallocatedblocks())
        assert 7 * ROUND > 100_000
    # Nothing went wrong, and every kind of answer came.
    counted = {
        dict(labels)["rule"]: number
        for (name, labels), number in samples(metrics).items()
        if "decisions_total" in name
    }
    assert set(counted) == {"", "block sender_org", "unknown domain", "observed", "client"}
    assert min(counted.values()) > 1000
    assert not [name for name, _ in series[-1] if "troubles" in name]
    # The first rounds fill what is bounded. After that nothing grows: one object kept of each question would
    # be three rounds full of them.
    assert series[1] == series[-1]
    assert len(series[-1]) < 30
    assert max(blocks[4:]) - max(blocks[:4]) < ROUND


def test_a_storm_of_messages_adds_no_series_to_those_of_the_milter():
    metrics = Metrics("milter")
    tell = tell_all(ScanMetrics(metrics).handlers())
    outcomes = ("ham", "tagged", "quarantined", "rejected", "unscanned", "skipped")

    def messages(count: int) -> None:
        for i in range(count):
            outcome = outcomes[i % 6]
            tell(
                SCANNED._replace(
                    queue_id=f"4{i}",
                    client=f"192.0.{i >> 8}.{i & 255}",
                    sender=f"u{i}@s{i}.example",
                    outcome=outcome,
                    reason="deadline" if outcome == "unscanned" else "",
                    symbols=(f"SYMBOL_{i}",),
                    action=f"550 {i}",
                )
            )

    messages(6)
    first = set(samples(metrics))
    messages(20_000)
    assert set(samples(metrics)) == first
