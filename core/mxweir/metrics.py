"""The observer that counts, and the families it shows to Prometheus.

Counting is adding to a plain dict, far cheaper than a labelled metric object;
`prometheus_client` only formats at scrape time. Every label value comes from
the code or from the configuration: whatever a stranger sends, the number of
series stays.

A daemon of several processes shows the figures of one: what each counted is
added up family by family (`merged`).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from mxweir import __version__
from mxweir.events import Asked, Counted, Decided, Handlers, Passed, Scanned, Switched, Trouble, Unanswered

ANSWER_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SCAN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

Gauge = Callable[[], Iterable[tuple[tuple[str, ...], float]]]
"""Gives label values and the value, at scrape time."""


class Counter:
    """A family of counters; `add` with the label values in order."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self.values = defaultdict[tuple[str, ...], float](float)

    def add(self, *labels: str) -> None:
        """Count."""
        self.values[labels] += 1.0

    def plus(self, other: "Counter") -> "Counter":
        """A family with what both have counted."""
        sum_up = Counter(self.name, self.help, self.labels)
        for values in (self.values, other.values):
            for labels, value in list(values.items()):
                sum_up.values[labels] += value
        return sum_up

    def family(self) -> Metric:
        """What Prometheus is shown."""
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in list(self.values.items()):
            family.add_metric(labels, value)
        return family


class Histogram:
    """A histogram without labels; `bounds` are upper bounds in seconds."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self.bounds = name, help, tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count one duration, or several that were the same."""
        self.counts[bisect_left(self.bounds, seconds)] += count
        self.sum += seconds * count

    def plus(self, other: "Histogram") -> "Histogram":
        """A histogram of what both have counted."""
        sum_up = Histogram(self.name, self.help, self.bounds)
        sum_up.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        sum_up.sum = self.sum + other.sum
        return sum_up

    def family(self) -> Metric:
        """What Prometheus is shown."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), list(self.counts), strict=True):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(self.name, self.help)
        family.add_metric([], buckets, self.sum)
        return family


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gauge showed when it was read. Those of several processes are summed, or the highest counts."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], float]
    summed: bool

    def plus(self, other: "Reading") -> "Reading":
        """What the two processes show together."""
        values = dict(self.values)
        for labels, value in other.values.items():
            mine = values.get(labels)
            values[labels] = value if mine is None else mine + value if self.summed else max(mine, value)
        return Reading(self.name, self.help, self.labels, values, self.summed)

    def family(self) -> Metric:
        """What Prometheus is shown."""
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


Family = Counter | Histogram | Reading
Figures = Sequence[Family]
"""What one process counted and showed at one time."""


def merged(*processes: Figures) -> list[Family]:
    """The figures of several processes as those of one."""
    found: dict[str, Any] = {}
    for figures in processes:
        for family in figures:
            former = found.get(family.name)
            found[family.name] = family if former is None else former.plus(family)
    return list(found.values())


class Metrics:
    """All families of one daemon: those counted from events, and gauges read when asked."""

    def __init__(self, daemon: str) -> None:
        self._gauges: list[tuple[str, str, Sequence[str], bool, Gauge]] = []
        self.others: Callable[[], Iterable[Figures]] = tuple
        """What further processes of the daemon have counted; asked at each scrape, from any thread."""
        self.troubles = Counter("mxweir_troubles", "Things that went wrong, by kind.", ["daemon", "what"])
        self.gauge("mxweir_build_info", "Which version runs.", ["version"], lambda: [((__version__,), 1.0)])
        self._daemon = daemon
        self._families: list[Counter | Histogram] = [self.troubles]
        self._questions = self.counter(
            "mxweir_limit_questions",
            "Questions to limits that Redis counts, by who answered: redis, refusals (it gave), process.",
            ["by"],
        )
        self._unanswered = self.counter(
            "mxweir_redis_unanswered", "Calls to Redis without a reply, by reason.", ["kind"]
        )

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """Add a family of counters."""
        self._families.append(counter := Counter(name, help, labels))
        return counter

    def histogram(self, name: str, help: str, bounds: Sequence[float]) -> Histogram:
        """Add a histogram."""
        self._families.append(histogram := Histogram(name, help, bounds))
        return histogram

    def gauge(
        self, name: str, help: str, labels: Sequence[str], read: Gauge, *, summed: bool = False
    ) -> None:
        """Add a gauge that is read at each scrape.

        Of several processes the highest value is shown, or their sum with `summed`.
        """
        self._gauges.append((name, help, labels, summed, read))

    def counted(self, event: Counted) -> None:
        """Count questions to limits in Redis, where there are such."""
        self._questions.values[event.by,] += event.questions

    def unanswered(self, event: Unanswered) -> None:
        """Count a call to Redis that had no reply."""
        self._unanswered.values[event.kind,] += 1

    def trouble(self, event: Trouble) -> None:
        """Count a trouble."""
        self.troubles.values[self._daemon, event.what] += event.times

    def figures(self) -> list[Family]:
        """What this process has counted and shows now, to be read or sent at once: counting goes on."""
        return [
            *self._families,
            *(
                Reading(name, text, tuple(labels), dict(read()), summed)
                for name, text, labels, summed, read in self._gauges
            ),
        ]

    def collect(self) -> Iterator[Metric]:
        """All families, for `prometheus_client`."""
        for family in merged(self.figures(), *self.others()):
            yield family.family()


class PolicyMetrics:
    """Counts what the policy daemon decides."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._decisions = metrics.counter(
            "mxweir_policy_decisions", "Answers to Postfix, by what decided.", ["check", "rule", "action"]
        )
        self._seconds = metrics.histogram(
            "mxweir_policy_answer_seconds", "From the last byte of a question to its answer.", ANSWER_SECONDS
        )

    def handlers(self) -> Handlers:
        """What is counted."""
        return {
            Decided: self._decided,
            Passed: self._passed,
            Counted: self._metrics.counted,
            Unanswered: self._metrics.unanswered,
            Trouble: self._metrics.trouble,
        }

    def _passed(self, event: Passed) -> None:
        self._decisions.values["", "", "pass"] += event.questions
        self._seconds.observe(event.seconds, event.questions)

    def _decided(self, event: Decided) -> None:
        _, (verdict, _, check, rule, _, _, observed), seconds = event
        self._decisions.values[check, rule, verdict] += 1.0
        self._seconds.observe(seconds)
        for one in observed:
            self._decisions.add("limits", one.rule, "observe")


class ScanMetrics:
    """Counts what the milter does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._scans = metrics.counter(
            "mxweir_milter_messages", "Messages, by engine and outcome.", ["engine", "outcome"]
        )
        self._unscanned = metrics.counter(
            "mxweir_milter_unscanned", "Messages not scanned, by reason.", ["reason"]
        )
        self._decisions = metrics.counter(
            "mxweir_milter_decisions", "What limits by content decided.", ["rule", "action"]
        )
        self._seconds = metrics.histogram(
            "mxweir_milter_scan_seconds", "From end of message to the verdict.", SCAN_SECONDS
        )
        self._asked = metrics.counter(
            "mxweir_milter_engine_calls",
            "Messages that an engine was asked about, by what it answered.",
            ["engine", "position", "address", "result"],
        )
        self._switches = metrics.counter(
            "mxweir_milter_engine_switches",
            "Changes of an address's breaker.",
            ["engine", "position", "address", "state"],
        )

    def handlers(self) -> Handlers:
        """What is counted."""
        return {
            Scanned: self._scanned,
            Asked: self._called,
            Switched: self._switched,
            Counted: self._metrics.counted,
            Unanswered: self._metrics.unanswered,
            Trouble: self._metrics.trouble,
        }

    def _called(self, event: Asked) -> None:
        self._asked.add(event.engine, event.position, event.address, event.result)

    def _switched(self, event: Switched) -> None:
        self._switches.add(event.engine, event.position, event.address, event.state)

    def _scanned(self, event: Scanned) -> None:
        self._scans.add(event.engine, event.outcome)
        if event.engine:
            self._seconds.observe(event.seconds)
        if event.outcome == "unscanned":
            self._unscanned.add(event.reason)
        if event.limit:
            self._decisions.add(event.limit, "reject" if event.action.startswith("5") else "defer")
        for one in event.observed:
            self._decisions.add(one.rule, "observe")
