"""Answers by limits that a Redis of paper counts: what is asked and answered, also when it is silent."""

from collections import Counter
from collections.abc import Sequence
from struct import iter_unpack
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.domains.match import Match, State
from mxweir.events import PASS, Counted, Decided, Passed
from mxweir.ratelimit.shared import Shared
from mxweir.redis.errors import RedisError
from mxweir.redis.offset import Offset
from mxweir.redis.servers import Servers
from mxweir.testing import Recorder, SettableClock
from mxweir_policyd.deferred import Owed
from mxweir_policyd.protocol import Request
from mxweir_policyd.relaydomains.replica import Replica
from mxweir_policyd.shared.answerer import SharedAnswerer
from mxweir_policyd.shared.pipeline import SharedPipeline
from mxweir_policyd.worker import build_pipeline

PASSED = b"action=DUNNO\n\n"
REQUEST = Request(b"RCPT", b"192.0.2.1", b"h", b"a@a.example", b"r@x.example", instance=b"1")


class PaperRedis:
    """Does what the script does, but forgets nothing; answers when it is told to."""

    clustered = False
    available = True

    def __init__(self, clock: SettableClock) -> None:
        self.counts = Counter[bytes]()
        self.waiting: list[tuple[Sequence[bytes], Sequence[bytes], Any]] = []
        self.timeouts: list[float] = []
        """In seconds, of each call that came in."""
        self._clock = clock

    def eval(self, script: object, keys: Any, args: Any, then: Any, timeout: float) -> None:
        """A call comes in."""
        self.waiting.append((keys, args, then))
        self.timeouts.append(timeout)

    def offset(self, key: object) -> Offset:
        """How far its clock is ahead: not known."""
        return Offset(self._clock)

    def answer(self) -> None:
        """Answer all that waits, and what comes for that."""
        while self.waiting:
            self.answer_one()

    def answer_one(self) -> None:
        """Answer what waits longest."""
        keys, args, then = self.waiting.pop(0)
        then(self._said(keys, args))

    def fail(self) -> None:
        """Let all that waits fail, and what comes for that."""
        while self.waiting:
            self.waiting.pop(0)[2](RedisError("timeout"))

    def _said(self, keys: Sequence[bytes], args: Sequence[bytes]) -> list[Any]:
        lifetime, of, *limits = (number for (number,) in iter_unpack("<d", args[2]))
        count, repeats = int(of), int(lifetime > 0)
        reply: list[Any] = [int(self._clock() * 1e6)]
        questions = (len(keys) - repeats) // count
        brought = (len(args) - 3) // questions
        for number in range(questions):
            names = list(keys[repeats + number * count :][:count])
            mark = [keys[0] + b":" + args[3 + number * brought]] if repeats else []
            if mark and self.counts[mark[0]]:
                continue
            full = [i for i in range(count) if self.counts[names[i]] >= limits[4 * i + 2]]
            for i in full:
                reply += [number + 1, i + 1, self.counts[names[i]], 5_000_000]
            if not full:
                self.counts.update(mark + names)
        return reply


class Table:
    """Names below x.example are ours."""

    ours: frozenset[str] = frozenset()

    def state(self, domain: str) -> State:
        return State.OURS if domain.endswith("x.example") else State.NOT_OURS

    def find(self, domain: str) -> Match:
        return Match(self.state(domain))


class Stand:
    """An answerer with its Redis of paper."""

    def __init__(self, text: str) -> None:
        self.clock, self.recorder = SettableClock(), Recorder()
        self.redis = PaperRedis(self.clock)
        self.pipeline = cast(
            "SharedPipeline", build_pipeline(loads(text), cast("Replica", Table()), self._share)
        )
        self.answerer = SharedAnswerer(self.pipeline, self.clock, self.recorder, tell_each=True)

    def _share(self, limits: Any) -> Shared:
        return Shared(limits, cast("Servers", self.redis), "p", self.clock, self.recorder, 0.1)

    def counted(self) -> list[Counted]:
        """Who answered questions to limits."""
        return [event for event in self.recorder.events if isinstance(event, Counted)]

    def answer(self, *requests: Request) -> list[bytes | None]:
        """The replies, when Redis has answered."""
        replies = self.answerer.answer(requests)
        self.redis.answer()
        return settled(replies)

    def name(self, limit: str, key: str) -> bytes:
        """The name in Redis of what a limit counts by a key."""
        (of,) = [one for one in self.pipeline.limits.limits if one.name == limit]
        counter = self.pipeline.shared.shapes.counter_of(of, key)
        assert counter is not None
        return counter.name(key)

    def decided(self) -> list[Any]:
        """What was told of every question."""
        told = []
        for event in self.recorder.events:
            if isinstance(event, Passed):
                assert event.questions == len(event.facts)
                told += [(facts, PASS) for facts in event.facts]
            elif isinstance(event, Decided):
                told.append((event.facts, event.decision))
        return told


def settled(replies: Sequence[bytes | Owed]) -> list[bytes | None]:
    return [reply.reply if isinstance(reply, Owed) else reply for reply in replies]


def limit(name: str, key: str, rate: str, more: str = "") -> str:
    return f'[[limit]]\nname = "{name}"\nkey = {key}\nrate = "{rate}"\n{more}\n'


LIMITS = (
    limit("client", '"client_network"', "6/minute", "burst = 8")
    + limit("org", '"sender_org"', "9/minute", 'overrides = { "b.example" = "3/minute", "<>" = "unlimited" }')
    + limit("mailbox", '"recipient"', "5/minute", 'refuse = "defer"')
    + limit("fan", '"client_address"', "3/hour", 'distinct = "sender_domain"')
    + limit("size", '"sender"', "1MB/hour", 'unit = "byte"')
)
WATCHED = LIMITS + limit("watched", '"helo"', "2/minute", 'mode = "observe"')
REQUESTS = st.builds(
    Request,
    protocol_state=st.sampled_from([b"RCPT", b"RCPT", b"RCPT", b"DATA", b"END-OF-MESSAGE"]),
    client_address=st.sampled_from([b"192.0.2.1", b"192.0.2.2", b"198.51.100.1", b"unknown"]),
    helo_name=st.sampled_from([b"", b"h", b"\xff"]),
    sender=st.sampled_from([b"a@a.example", b"b@x.b.example", b"", b"\xff@a.example"]),
    recipient=st.sampled_from([b"r@x.example", b"s@sub.x.example", b"r@foreign.example", b""]),
    instance=st.sampled_from([b"", b"1", b"2", b"3", b"4"]),
    size=st.sampled_from([b"", b"400000"]),
    policy_context=st.sampled_from([b"", b"", b"relay", b"limits", b"message", b"other"]),
)
LINE = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 7.0]), REQUESTS), max_size=40)


@pytest.mark.parametrize("text", [LIMITS, WATCHED])
@given(LINE)
def test_the_lane_that_gathers_answers_tells_and_charges_what_the_long_way_does(text, line):
    gathered, alone = Stand(text), Stand(text)
    alone.pipeline.gather = lambda requests, replies, now: None
    for gap, request in line:
        gathered.clock.advance(gap)
        alone.clock.advance(gap)
        assert gathered.answer(request) == alone.answer(request)
    assert gathered.decided() == alone.decided()
    assert gathered.redis.counts == alone.redis.counts


@given(st.lists(REQUESTS, max_size=600))
def test_all_that_come_together_are_answered_each_once_and_in_order(requests):
    stand = Stand(WATCHED)
    replies = stand.answer(*requests)
    assert len(replies) == len(requests)
    assert all(replies)
    assert len(stand.decided()) == len(requests)
    assert not stand.answerer.debts.open


def test_questions_that_come_together_travel_in_one_call():
    stand = Stand(LIMITS)
    stand.answerer.answer([REQUEST._replace(sender=b"s@d%d.example" % i) for i in range(3)])
    assert len(stand.redis.waiting) == 1


def test_redis_is_asked_about_the_first_of_many_while_the_last_are_still_gathered():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    gather, under_way = stand.pipeline.gather, []

    def watched(requests: Any, replies: Any, now: float) -> None:
        under_way.append(len(stand.redis.waiting))
        gather(requests, replies, now)

    stand.pipeline.gather = watched
    assert stand.answer(*requests_of(80)) == [PASSED] * 80
    assert under_way == [0, 1, 2]


def requests_of(senders: int, first: int = 0) -> list[Request]:
    numbers = range(first, first + senders)
    return [REQUEST._replace(sender=b"s%d@a.example" % n, instance=b"%d" % n) for n in numbers]


def test_what_comes_while_redis_is_asked_travels_together_when_it_has_answered():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    replies = [reply for n in range(5) for reply in stand.answerer.answer(requests_of(1, n))]
    assert [len(keys) - 1 for keys, _, _ in stand.redis.waiting] == [1]
    assert stand.answerer.debts.open == 5
    stand.redis.answer_one()
    assert [len(keys) - 1 for keys, _, _ in stand.redis.waiting] == [4]
    stand.redis.answer()
    assert settled(replies) == [PASSED] * 5
    assert not stand.answerer.debts.open


def test_many_questions_do_not_wait_for_a_call_to_be_answered():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    replies = [reply for n in range(0, 60, 10) for reply in stand.answerer.answer(requests_of(10, n))]
    assert [len(keys) - 1 for keys, _, _ in stand.redis.waiting] == [10, 20, 20]
    stand.redis.answer()
    assert settled(replies) == [PASSED] * 60


def test_what_a_question_has_waited_is_part_of_the_time_that_redis_has():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    stand.answerer.answer(requests_of(2))
    stand.answerer.answer(requests_of(1, 2))
    stand.clock.advance(0.03)
    stand.answerer.answer(requests_of(1, 3))
    stand.clock.advance(0.05)
    assert stand.redis.timeouts == [0.1]
    stand.redis.answer()
    assert stand.redis.timeouts[1:] == [pytest.approx(0.02, abs=1e-6)]


def test_nobody_waits_for_a_redis_that_takes_its_time():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    stand.answerer.answer(requests_of(1))
    stand.clock.advance(0.06)
    stand.redis.answer()
    for n in range(1, 4):
        stand.answerer.answer(requests_of(1, n))
    assert [len(keys) - 1 for keys, _, _ in stand.redis.waiting] == [1, 1, 1]
    stand.redis.answer()
    for n in range(4, 6):
        stand.answerer.answer(requests_of(1, n))
    assert [len(keys) - 1 for keys, _, _ in stand.redis.waiting] == [1]


def test_what_waits_for_redis_while_the_configuration_changes_is_answered():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    replies = [reply for n in range(3) for reply in stand.answerer.answer(requests_of(1, n))]
    stand.answerer.pipeline = Stand(limit("sender", '"sender"', "9/minute")).pipeline
    stand.redis.answer()
    assert settled(replies) == [PASSED] * 3


def test_more_questions_than_a_call_may_carry_make_several():
    stand = Stand(limit("sender", '"sender"', "9/minute"))
    assert stand.answer(*requests_of(1000)) == [PASSED] * 1000
    assert sum(count for name, count in stand.redis.counts.items() if b":seen:" not in name) == 1000


def test_an_answer_waits_for_redis_and_no_other_does():
    stand = Stand(LIMITS)
    first, second = stand.answerer.answer([REQUEST, REQUEST._replace(policy_context=b"relay")])
    assert isinstance(first, Owed)
    assert first.reply is None
    assert second == PASSED
    stand.redis.answer()
    assert first.reply == PASSED


def test_when_redis_is_silent_this_process_counts_and_nothing_is_counted_twice():
    stand = Stand(limit("sender", '"sender"', "3/minute"))
    requests = [REQUEST._replace(instance=b"%d" % i) for i in range(4)]
    replies = stand.answerer.answer(requests)
    stand.redis.fail()
    answers = settled(replies)
    assert answers[:3] == [PASSED] * 3
    assert answers[3] is not None
    assert b"550 5.7.1" in answers[3]
    assert not stand.redis.counts
    assert stand.answer(REQUEST._replace(instance=b"9")) == [PASSED]
    assert stand.redis.counts[stand.name("sender", "a@a.example")] == 1


def test_a_fault_at_one_question_leaves_none_of_its_row_without_an_answer(monkeypatch):
    stand = Stand(limit("sender", '"sender"', "1/day"))
    decide = stand.pipeline.limits.decide

    def faulty(facts: Any, now: float) -> Any:
        if facts.sender.address == "bad@a.example":
            raise RuntimeError("a fault of ours")
        return decide(facts, now)

    monkeypatch.setattr(type(stand.pipeline.limits), "decide", lambda self, facts, now: faulty(facts, now))
    bad = REQUEST._replace(sender=b"bad@a.example", instance=b"2")
    replies = stand.answerer.answer([REQUEST, bad, REQUEST._replace(instance=b"3")])
    stand.redis.fail()
    first, second, third = settled(replies)
    assert (first, second) == (PASSED, PASSED)
    assert third is not None
    assert b"550 5.7.1" in third
    assert not stand.answerer.debts.open


def test_after_a_fault_at_what_redis_says_all_are_answered_and_who_asks_next_does_not_wait(monkeypatch):
    stand = Stand(limit("sender", '"sender"', "1/day"))

    def faulty(_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    replies = [reply for n in range(2) for reply in stand.answerer.answer(requests_of(3, 3 * n))]
    monkeypatch.setattr(stand.pipeline, "facts", faulty)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        stand.redis.fail()
    monkeypatch.undo()
    stand.redis.answer()
    assert settled(replies) == [PASSED] * 6
    assert not stand.answerer.debts.open
    stand.answerer.answer(requests_of(1, 6))
    assert [len(keys) - 1 for keys, _, _ in stand.redis.waiting] == [1]


def test_a_fault_while_a_row_is_gathered_leaves_the_count_of_what_is_owed_right(monkeypatch):
    stand = Stand(limit("sender", '"sender"', "1/day"))

    def faulty(*_: Any) -> None:
        raise OSError("the log's disk is full")

    monkeypatch.setattr(stand.answerer, "tell_passed", faulty)
    with pytest.raises(OSError, match="full"):
        stand.answerer.answer([*requests_of(3), REQUEST._replace(policy_context=b"relay")])
    monkeypatch.undo()
    assert stand.answerer.debts.open == 3
    replies = stand.answerer.answer(requests_of(2, 3))
    assert stand.answerer.debts.open == 5
    stand.redis.answer()
    assert settled(replies) == [PASSED] * 2
    assert not stand.answerer.debts.open


def test_while_redis_cannot_be_asked_nobody_waits_for_it():
    stand = Stand(limit("sender", '"sender"', "3/minute"))
    stand.redis.available = False
    asked = [REQUEST._replace(instance=b"%d" % i) for i in range(4)]
    replies = settled(stand.answerer.answer([*asked, REQUEST._replace(policy_context=b"relay")]))
    assert [reply == PASSED for reply in replies] == [True, True, True, False, True]
    assert not stand.redis.waiting
    assert stand.counted() == [Counted("process", 3), Counted("process", 1)]


def test_what_another_check_ends_while_redis_is_away_is_no_question_to_limits():
    stand = Stand(
        '[[access]]\nblock = "sender"\nvalue = "bad@a.example"\n'
        '[[access]]\nallow = "sender"\nvalue = "good@a.example"\n' + limit("sender", '"sender"', "3/minute")
    )
    stand.redis.available = False
    for other in (
        {"recipient": b"r@foreign.example"},
        {"sender": b"bad@a.example"},
        {"sender": b"good@a.example"},
        {"policy_context": b"relay"},
        {"protocol_state": b"END-OF-MESSAGE"},
    ):
        settled(stand.answerer.answer([REQUEST._replace(**other)]))
    assert stand.counted() == []


def test_a_key_that_redis_refused_is_refused_without_asking_again_until_it_could_pass():
    stand = Stand(limit("sender", '"sender"', "3/minute"))
    *_, answers = [stand.answer(REQUEST._replace(instance=b"%d" % i)) for i in range(4)]
    assert answers[0] is not None
    assert b"room again in 5 s" in answers[0]
    stand.clock.advance(4.0)
    (reply,) = stand.answerer.answer([REQUEST._replace(instance=b"8")])
    assert isinstance(reply, bytes)
    assert b"room again in 1 s" in reply
    assert not stand.redis.waiting
    stand.clock.advance(1.5)
    stand.answerer.answer([REQUEST._replace(instance=b"9")])
    assert len(stand.redis.waiting) == 1


def test_a_question_that_was_charged_is_not_sent_again():
    stand = Stand(limit("sender", '"sender"', "3/minute"))
    assert stand.answer(REQUEST) == [PASSED]
    assert stand.answerer.answer([REQUEST]) == [PASSED]
    assert not stand.redis.waiting
