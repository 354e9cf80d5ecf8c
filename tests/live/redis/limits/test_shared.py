import pytest

from mxweir.config import loads
from mxweir.redis.errors import RedisError
from mxweir.testing import question
from mxweir_ops.lab.counted import CLOCK, ERA, Counted, Direct

SENDER = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "3/minute"\n'
DAILY = SENDER.replace("3/minute", "9/day") + "window = true\n"
MAILBOX = '[[limit]]\nname = "mailbox"\nkey = "recipient"\nrate = "5/minute"\n'
QUOTA = '[[limit]]\nname = "quota"\nkey = "recipient"\nrate = "5/minute"\nwindow = true\n'
FANOUT = '[[limit]]\nname = "fanout"\nkey = "recipient"\nrate = "2/hour"\ndistinct = "sender"\n'
NARROW = '[[limit]]\nname = "narrow"\nkey = "client_address"\nrate = "1/minute"\n'
OBSERVED = '[[limit]]\nname = "observed"\nkey = "recipient"\nrate = "2/minute"\nmode = "observe"\n'
ALL = MAILBOX + QUOTA + FANOUT + NARROW


@pytest.fixture
def rules(counted):
    """Limits of rules as they are written, at the begin of the time that is set."""
    return lambda text, **options: counted(*loads(text).limit, **options).at(0)


def refused(outcomes):
    return [outcome.refusal.limit.name if outcome.refusal else None for outcome in outcomes]


def senders(count, first=0, **others):
    return [question(sender=f"s{i}@x.example", **others) for i in range(first, first + count)]


def test_the_first_limit_without_room_refuses_and_those_behind_it_are_not_charged(rules):
    limits = rules(SENDER + MAILBOX)
    assert refused(limits.anew(*[question()] * 10)) == [None] * 3 + ["sender"] * 7
    assert limits.figures(question()) == {"sender": "3/3", "mailbox": "3/5"}


def test_what_a_later_limit_refuses_is_not_charged_to_those_before_it(rules):
    limits = rules(ALL)
    facts = senders(4)
    assert refused(limits.anew(*facts)) == [None, "narrow", "narrow", "narrow"]
    assert limits.figures(facts[0]) == {"mailbox": "1/5", "quota": "1/5", "fanout": "1/2", "narrow": "1/1"}


def test_a_value_that_was_seen_before_is_as_old_as_before_when_its_question_is_refused(rules):
    limits = rules(FANOUT + NARROW)
    facts = senders(1)[0]
    limits.anew(facts)
    limits.at(30_000_000)
    assert refused(limits.anew(facts)) == ["narrow"]
    limits.at(3_600_000_000)
    assert limits.figures(facts)["fanout"] == "0/2"


def test_questions_of_one_row_count_for_each_other(rules):
    limits = rules(ALL.replace(NARROW, ""))
    assert refused(limits.anew(*senders(4))) == [None, None, "fanout", "fanout"]
    same = [question(sender="s0@x.example")] * 4
    assert refused(limits.anew(*same)) == [None, None, None, "mailbox"]


def test_a_row_may_be_longer_than_a_call(rules):
    limits = rules(SENDER.replace("3/minute", "1000/minute") + MAILBOX.replace("5/minute", "700/minute"))
    outcomes = limits.anew(*senders(900))
    assert refused(outcomes) == [None] * 700 + ["mailbox"] * 200


def test_questions_of_different_limits_come_in_one_row(rules):
    own = SENDER + 'overrides = { "s1@x.example" = "1/minute", "s2@x.example" = "unlimited" }\n'
    limits = rules(own + MAILBOX.replace("5/minute", "100/minute"))
    row = [one for pair in zip(*[senders(3)] * 5, strict=True) for one in pair]
    assert refused(limits.anew(*row)) == [
        *[None, None, None, "sender", "sender"],
        *[None, "sender", "sender", "sender", "sender"],
        *[None] * 5,
    ]
    assert limits.figures(senders(3)[2]) == {"sender": "0/unlimited", "mailbox": "9/100"}


def test_a_limit_that_observes_says_so_and_refuses_nothing(rules):
    limits = rules(OBSERVED + MAILBOX)
    outcomes = limits.anew(*[question()] * 7)
    assert refused(outcomes) == [None] * 5 + ["mailbox"] * 2
    assert [[(one.rule, one.figure) for one in outcome.observed] for outcome in outcomes] == [
        [],
        [],
        *[[("observed", "2/2")]] * 5,
    ]


def test_a_question_is_charged_once_whichever_process_is_asked(rules):
    first, second = rules(SENDER + MAILBOX), rules(SENDER + MAILBOX, empty=False)
    for _ in range(10):
        for process in (first, second):
            assert refused(process.anew(question(instance="a.b.c"))) == [None]
    assert first.figures(question()) == {"sender": "1/3", "mailbox": "1/5"}
    assert [step.note for step in second.preview(question(instance="a.b.c"))[1]] == [
        "this very question was counted before"
    ]
    other = question(instance="a.b.c", recipient="other@b.example")
    assert refused(first.anew(other)) == [None]
    assert first.figures(question())["sender"] == "2/3"


def test_a_repeated_question_in_one_row_is_charged_once(rules):
    limits = rules(SENDER)
    same, other = question(instance="a.b.c"), question(instance="d.e.f")
    assert refused(limits.anew(same, same, other, same)) == [None] * 4
    assert limits.figures(question()) == {"sender": "2/3"}


def test_a_charged_question_is_known_for_two_minutes_also_when_the_clock_is_set_back(rules):
    limits = rules(DAILY).at(1_000_000_000)
    limits.anew(question(instance="a.b.c"))
    for second in (1_000, 400, 519, 3, 122):
        limits.at(second * 1_000_000).anew(question(instance="a.b.c"), question(instance=f"i.{second}"))
    assert limits.figures(question()) == {"sender": "6/9"}
    assert limits.servers.keys_without_expiry() == []


def test_a_question_is_known_while_others_are_remembered_in_the_next_set(rules):
    limits = rules(DAILY)
    for second, instance in ((0, "i.0"), (119, "a.b.c"), (121, "i.1"), (238, "a.b.c")):
        limits.at(second * 1_000_000).anew(question(instance=instance))
    assert limits.figures(question()) == {"sender": "3/9"}


def test_a_question_is_forgotten_after_four_minutes_also_when_the_clock_was_set_back(rules):
    limits = rules(DAILY)
    for second, instance in ((1000, "a.b.c"), (0, "i.0"), (121, "i.1"), (242, "i.2"), (243, "a.b.c")):
        limits.at(second * 1_000_000).anew(question(instance=instance))
    # In a Cluster each has a key of its own, whose life is not of the clock that is set by hand.
    assert limits.figures(question()) == {"sender": "4/9" if limits.servers.clustered else "5/9"}


def test_marks_of_questions_are_in_two_sets_at_most(rules):
    limits = rules(DAILY)
    for minute in range(9):
        limits.at(minute * 60_000_000).anew(question(instance=f"i.{minute}"))
    sets = [key for key in limits.servers.send("KEYS", "mxweir:seen:*") if not limits.servers.clustered]
    assert len(sets) == (0 if limits.servers.clustered else 2)
    assert limits.servers.keys_without_expiry() == []


def test_a_refused_question_is_asked_again_when_it_comes_again(rules):
    limits = rules(SENDER)
    limits.anew(*[question()] * 3)
    assert refused(limits.anew(question(instance="a.b.c"))) == ["sender"]
    limits.at(20_000_000)
    assert refused(limits.anew(question(instance="a.b.c"))) == [None]
    assert limits.figures(question()) == {"sender": "3/3"}


def test_what_is_known_here_is_not_asked_again(rules):
    limits = rules(SENDER + MAILBOX)
    assert refused(limits.decide(*[question()] * 4)) == [None, None, None, "sender"]
    limits.servers.calls.clear()
    for second in range(20):
        (outcome,) = limits.at(second * 1_000_000).decide(question())
        assert refused([outcome]) == ["sender"]
        assert outcome.refusal.wait == pytest.approx(20 - second)
    # Once, for nothing is believed for longer than ten seconds.
    assert len([words for words in limits.servers.calls if words[0] == "EVALSHA"]) == 1
    limits.at(20_000_000)
    assert refused(limits.decide(question(), question())) == [None, "sender"]


def test_what_is_known_of_one_cost_says_nothing_of_a_smaller_one(rules):
    limits = rules('[[limit]]\nname = "bytes"\nkey = "sender"\nrate = "1000/minute"\nunit = "byte"\n')
    sizes = [600, 500, 500, 400, 1]
    said = [
        refused(limits.decide(question(state="END-OF-MESSAGE", size=str(size), instance=f"{i}")))[0]
        for i, size in enumerate(sizes)
    ]
    assert said == [None, "bytes", "bytes", None, "bytes"]


def test_a_flood_of_one_sender_asks_redis_less_than_once_in_twenty(server, rules):
    limits = rules(SENDER + MAILBOX)
    server.cli("CONFIG", "RESETSTAT")
    for i in range(400):
        limits.at(i * 10_000).decide(question(instance=f"i{i}"))
    assert server.calls("evalsha") + server.calls("eval") <= 20


def test_a_call_that_comes_too_late_charges_nothing(rules):
    limits = rules(SENDER + MAILBOX)
    assert refused(limits.anew(question())) == [None]
    limits.servers.send("SET", CLOCK, (ERA + 1) * 1_000_000)
    assert refused(limits.anew(question())) == [None]
    assert limits.limits.preview(question(), limits.clock())[1][0].figure == "1/3"
    limits.at(1_000_000)
    assert limits.figures(question()) == {"sender": "1/3", "mailbox": "1/5"}


class Lost:
    """Loses one script call, the `number`th, or all."""

    def __init__(self, limits: Counted, number: int | None = None) -> None:
        self.number = number
        self.eval = limits.servers.eval
        self.calls = 0

    def __call__(self, script, keys, args, then, timeout):
        self.calls += 1
        if self.number is None or self.calls == self.number + 1:
            then(RedisError("timeout"))
        else:
            self.eval(script, keys, args, then, timeout)


def test_while_redis_does_not_answer_this_processs_limits_decide_and_nothing_is_counted_twice(
    rules, monkeypatch
):
    limits = rules(SENDER + MAILBOX)
    assert refused(limits.anew(*[question()] * 2)) == [None, None]
    with monkeypatch.context() as trouble:
        trouble.setattr(limits.servers, "eval", Lost(limits))
        asked = [question(instance=f"i{i}") for i in range(4)]
        assert refused(limits.decide(*asked)) == [None, None, None, "sender"]
        assert refused(limits.decide(*asked)) == [None, None, None, "sender"]
    assert limits.figures(question()) == {"sender": "2/3", "mailbox": "2/5"}
    assert refused(limits.decide(*asked[:3])) == [None] * 3
    assert limits.figures(question()) == {"sender": "2/3", "mailbox": "2/5"}
    assert refused(limits.decide(question(), question())) == [None, "sender"]


@pytest.mark.parametrize("answered", range(4))
def test_what_some_limits_took_is_given_back_when_the_next_one_does_not_answer(server, answered, monkeypatch):
    servers = Direct(server, clustered=True)
    servers.send("FLUSHALL")
    limits = Counted(servers, loads(ALL).limit).at(0)
    facts = question(instance="a.b.c")
    limits.anew(question(client="192.0.2.2"))
    before = limits.figures(facts)
    lost = Lost(limits, answered)
    monkeypatch.setattr(servers, "eval", lost)
    assert refused(limits.decide(facts)) == [None]
    monkeypatch.undo()
    assert limits.figures(facts) == before
    servers.close()


def test_a_changed_rate_counts_on_with_what_is_in_use(rules):
    fast = rules(SENDER.replace("3/minute", "60/minute"))
    fast.anew(*[question()] * 30)
    slower = rules(SENDER.replace("3/minute", "40/hour"), empty=False)
    assert slower.figures(question()) == {"sender": "30/40"}
    slower.at(90_000_000)
    assert slower.figures(question()) == {"sender": "29/40"}
    lower = rules(SENDER, empty=False)
    (outcome,) = lower.anew(question())
    assert (outcome.refusal.figure, outcome.refusal.wait) == ("3/3", pytest.approx(20.0))
    assert refused(lower.at(20_000_000).anew(question(), question())) == [None, "sender"]
    higher = rules(SENDER.replace("3/minute", "6000/minute"), empty=False).at(20_000_000)
    assert higher.figures(question()) == {"sender": "3/6000"}


@pytest.mark.parametrize("limit", [SENDER, SENDER + "window = true\n", SENDER + 'distinct = "recipient"\n'])
def test_what_is_used_up_lives_on_at_a_slower_rate(limit, rules):
    facts = [question(recipient=f"r{i}@b.example") for i in range(4)]
    fast = rules(limit)
    fast.anew(*facts[:3])
    slow = rules(limit.replace("3/minute", "3/day"), empty=False).at(1_000_000)
    assert refused(slow.anew(facts[3])) == ["sender"]
    (name,) = slow.servers.send("KEYS", "mxweir:sender*")
    assert slow.servers.send("PEXPIRETIME", name) >= (ERA + 80_000) * 1000


def test_a_changed_quota_counts_on_with_what_was_used_and_when(rules):
    minute = rules(QUOTA)
    for second in (0, 20, 40):
        minute.at(second * 1_000_000).anew(question())
    hour = rules(QUOTA.replace("5/minute", "4/hour"), empty=False).at(60_000_000)
    assert hour.figures(question()) == {"quota": "3/4"}
    assert refused(hour.anew(question(), question())) == [None, "quota"]
    back = rules(QUOTA, empty=False).at(119_000_000)
    assert back.figures(question()) == {"quota": "4/5"}
    assert back.at(10 * 60_000_000).figures(question()) == {"quota": "0/5"}


def test_a_changed_count_of_values_counts_on_with_those_seen(rules):
    rules(FANOUT.replace("2/hour", "9/hour")).anew(*senders(5))
    fewer = rules(FANOUT, empty=False)
    assert refused(fewer.anew(senders(1)[0], question())) == [None, "fanout"]
    shorter = rules(FANOUT.replace("2/hour", "2/minute"), empty=False).at(61_000_000)
    assert shorter.figures(question()) == {"fanout": "0/2"}


def test_a_counter_that_says_nothing_any_more_is_gone(rules):
    limits = rules(SENDER + MAILBOX.replace("mailbox", "steady").replace("5/", "1000/") + QUOTA + FANOUT)
    limits.anew(question())
    lives = {
        key.split(b":")[1].split(b".")[0].decode(): limits.servers.send("PEXPIRETIME", key) - ERA * 1000
        for key in limits.servers.send("KEYS", "mxweir:*")
    }
    assert lives == {
        "sender": 30_000,
        "steady": 11_000,
        "quota": pytest.approx(61_000, abs=2),
        "fanout": pytest.approx(3_600_000, abs=2),
    }
