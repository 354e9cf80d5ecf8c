"""Random arrivals: a process, Redis, and a reference by brute force and exact fractions say the same."""

import math
from collections.abc import Iterator
from copy import deepcopy
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxweir.config import LimitRule
from mxweir.facts import Facts
from mxweir.ratelimit.arithmetic import ROUNDING, SLICES
from mxweir.ratelimit.limits import Limit, Limits, Outcome
from mxweir.ratelimit.rate import Rate
from mxweir.ratelimit.shapes import REPEATS_SECONDS
from mxweir.testing import question
from mxweir_ops.lab.counted import ERA, FOLDER, Counted


class UnclearError(Exception):
    """A time so near to a border that rounding decides."""


class Gcra:
    def __init__(self, rate: Fraction, burst: int) -> None:
        self.rate, self.burst, self.tat = rate, burst, Fraction(0)

    def ask(self, now: Fraction, value: str, cost: int) -> tuple[Fraction, Fraction]:
        turn = now * self.rate
        unclear(self.tat - turn - self.burst)
        self.tat = min(self.tat, turn + self.burst)
        used = max(Fraction(0), self.tat - turn)
        unclear(used + cost - self.burst)
        return used, max(Fraction(0), (used + cost - self.burst) / self.rate)

    def charge(self, now: Fraction, value: str, cost: int) -> None:
        self.tat = max(self.tat, now * self.rate) + cost

    def empty(self) -> Fraction:
        """When it has nothing to say any more."""
        return self.tat / self.rate


class Window:
    def __init__(self, amount: int, period: Fraction) -> None:
        self.amount, self.width = amount, period / SLICES
        self.charges: list[tuple[int, int]] = []

    def ask(self, now: Fraction, value: str, cost: int) -> tuple[Fraction, Fraction]:
        part = math.floor(now / self.width)
        if self.width * 1024 % 1 and abs(now / self.width - round(now / self.width)) * self.width < 2e-6:
            raise UnclearError
        self.charges = sorted((min(at, part), held) for at, held in self.charges if at >= part - SLICES)
        live = self.charges
        used = sum(held for _, held in live)
        if used + cost <= self.amount:
            return Fraction(used), Fraction(0)
        for number, (at, _) in enumerate(live, 1):
            if used + cost - sum(held for _, held in live[:number]) <= self.amount:
                return Fraction(used), (at + SLICES + 1) * self.width - now
        return Fraction(used), self.width * SLICES

    def charge(self, now: Fraction, value: str, cost: int) -> None:
        self.charges.append((math.floor(now / self.width), cost))

    def empty(self) -> Fraction:
        return max((at + SLICES + 1 for at, _ in self.charges), default=0) * self.width


class Distinct:
    def __init__(self, amount: int, period: Fraction) -> None:
        self.amount, self.period = amount, period
        self.seen: dict[str, Fraction] = {}

    def ask(self, now: Fraction, value: str, _: int) -> tuple[Fraction, Fraction]:
        self.seen = {one: min(at, now) for one, at in self.seen.items() if at > now - self.period}
        room = value in self.seen or len(self.seen) < self.amount
        return Fraction(len(self.seen)), Fraction(0) if room else min(self.seen.values()) + self.period - now

    def charge(self, now: Fraction, value: str, _: int) -> None:
        self.seen[value] = now

    def empty(self) -> Fraction:
        return max(self.seen.values(), default=Fraction(0)) + self.period


def unclear(excess: Fraction) -> None:
    if 0 < abs(excess) < 4 * ROUNDING:
        raise UnclearError


class Said(NamedTuple):
    """What the reference says of one limit."""

    name: str
    used: Fraction
    wait: Fraction


class Reference:
    """All limits, as the documents describe them."""

    def __init__(self, rules: list[LimitRule]) -> None:
        self.limits = Limits(rules, FOLDER).limits
        self.counters: dict[tuple[str, str], Any] = {}
        self.known: set[tuple[bytes, bytes, str]] = set()

    def decide(self, facts: Facts, now: Fraction) -> tuple[Said | None, list[Said]]:
        identity = (facts.instance, facts.state, facts.recipient.given)
        if identity in self.known:
            return None, []
        charges, observed = [], []
        for counter, limit, (value, cost) in self.asked(facts):
            used, wait = counter.ask(now, value, cost)
            said = Said(limit.name, used, wait)
            if not wait:
                charges.append((counter, value, cost))
            elif limit.observe:
                observed.append(said)
            else:
                return said, observed
        for counter, value, cost in charges:
            counter.charge(now, value, cost)
        if facts.instance:
            self.known.add(identity)
        return None, observed

    def asked(self, facts: Facts) -> Iterator[tuple[Any, Limit, tuple[str, int]]]:
        for limit in self.limits:
            key = limit.key(facts)
            if limit.rule.overrides.get(key, limit.rule.rate) is not None:
                value, cost = limit.what(facts)
                yield self.counter(limit, key), limit, (value, int(cost))

    def counter(self, limit: Limit, key: str) -> Any:
        if (limit.name, key) not in self.counters:
            own = limit.rule.overrides.get(key)
            rate = own or limit.rule.rate
            period = Fraction(rate.period)
            if limit.rule.distinct:
                counter: Any = Distinct(rate.count, period)
            elif limit.rule.window:
                counter = Window(rate.count, period)
            else:
                burst = rate.count if own else limit.rule.burst or rate.count
                counter = Gcra(rate.count / period, burst)
            self.counters[limit.name, key] = counter
        return self.counters[limit.name, key]


def holds(outcome: Outcome, said: Said | None, observed: list[Said]) -> None:
    refusal = outcome.refusal
    assert (refusal and refusal.limit.name) == (said and said.name)
    assert [one.rule for one in outcome.observed] == [one.name for one in observed]
    figures = [one.figure for one in outcome.observed] + ([refusal.figure] if refusal else [])
    for figure, one in zip(figures, [*observed, said] if said else observed, strict=True):
        least, most = math.ceil(one.used - 3 * Fraction(ROUNDING)), math.ceil(one.used)
        assert least <= int(figure.split("/")[0]) <= most
    if refusal and said:
        assert abs(refusal.wait - float(said.wait)) < 1e-3


SENDERS = ["a@x.example", "b@x.example", "c@y.example"]
KEYS: list[tuple[str, ...]] = [("sender",), ("recipient",), ("sender_org",), ("sender", "recipient")]
OWN = st.sampled_from([None, Rate(2, 1.0), Rate(7, 60.0), Rate(1, 3600.0)])


@st.composite
def rules(draw: st.DrawFn) -> list[LimitRule]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["rate", "rate", "window", "distinct"]))
        key = draw(st.sampled_from(KEYS))
        overrides = draw(st.dictionaries(st.sampled_from(SENDERS), OWN, max_size=2)) if key == KEYS[0] else {}
        made.append(
            LimitRule(
                name=f"l{number}",
                key=key,
                rate=Rate(draw(st.integers(1, 6)), draw(st.sampled_from([1.0, 7.0, 60.0, 90.0, 3600.0]))),
                burst=draw(st.none() | st.integers(1, 8)) if kind == "rate" else None,
                window=kind == "window",
                distinct="sender" if kind == "distinct" else "",
                unit="message" if kind == "distinct" else draw(st.sampled_from(["message", "byte"])),
                mode=draw(st.sampled_from(["enforce", "enforce", "observe"])),
                overrides=overrides,
            )
        )
    return made


SIXTEENTHS = st.integers(0, 64).map(lambda n: n * 62_500)
GAPS = st.one_of(
    st.just(0),
    SIXTEENTHS,
    st.integers(0, 5_000_000),
    st.sampled_from([1_000_000, 60_000_000, 61_000_000, 3_600_000_000, 3_660_000_000]),
    st.sampled_from([-62_500, -1_000_000, -60_000_000, -7_200_000_000]),
)
"""Microseconds between two arrivals; a clock may stand still, or be set back."""

LIFETIME = REPEATS_SECONDS * 1_000_000

ARRIVALS = st.lists(
    st.tuples(
        GAPS,
        st.sampled_from(SENDERS),
        st.sampled_from(["r@b.example", "s@b.example"]),
        st.integers(0, 5),
        st.sampled_from(["", "", "i1", "i2", "i3", "new"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(rules(), ARRIVALS)
def test_a_process_redis_and_exact_fractions_say_the_same(counted, rules, arrivals):
    alone, reference = Limits(rules, FOLDER), Reference(rules)
    workers: list[Counted] = [counted(*rules), counted(*rules, empty=False)]
    now, passed = 86_400_000_000, 0
    for number, (gap, sender, recipient, size, instance) in enumerate(arrivals):
        passed += max(0, gap)
        # What a Cluster gave back is forgotten, and a clock that is set back does not bring it back.
        now += max(0, gap) if workers[0].servers.clustered else gap
        facts = question(
            sender=sender,
            recipient=recipient,
            state="END-OF-MESSAGE",
            size=str(size),
            # For how long a question is known at least is sure, and no more.
            instance=instance and f"{instance}.{number if instance == 'new' else passed // LIFETIME}",
        )
        before = deepcopy(reference.counters)
        try:
            said, observed = reference.decide(facts, ERA + Fraction(now, 1_000_000))
        except UnclearError:
            reference.counters = before
            continue
        holds(alone.decide(facts, ERA + now / 1e6), said, observed)
        (outcome,) = workers[number % 2].at(now).anew(facts)
        holds(outcome, said, observed)
        assert {getattr(event, "by", event) for event in workers[number % 2].told.events} <= {"redis"}
    lives_as_long_as_it_counts(workers[0], reference, ERA + Fraction(now, 1_000_000))
    assert workers[0].servers.keys_without_expiry() == []


def lives_as_long_as_it_counts(worker: Counted, reference: Reference, now: Fraction) -> None:
    by_name = {limit.name: limit for limit in worker.limits.limits}
    for (name, key), counter in reference.counters.items():
        if counter.empty() > now:
            asked = worker.shared.shapes.counter_of(by_name[name], key)
            assert asked is not None
            expires = worker.servers.send("PEXPIRETIME", asked.name(key))
            assert expires >= counter.empty() * 1000 - 1
