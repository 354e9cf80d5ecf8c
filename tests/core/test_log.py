import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import Log
from mxweir.events import Decided, Decision, Observed, Passed, Scanned, Trouble, notice, tell_all, warning
from mxweir.log import LogObserver
from mxweir.ratelimit.rate import Rate
from mxweir.testing import SettableClock, question

ANYTHING = st.text(max_size=60) | st.sampled_from(
    [
        "a\nlevel=error event=forged",
        'x" event="forged',
        "\\",
        "\u2028",
        "\x1b[2J",
        "\u202e",
        "a=b",
        "",
        " ",
        "caf\udce9",
    ]
)


class Logged:
    """A log observer with a clock by hand, and what it has written."""

    def __init__(self, *, sums_up: bool = True, **settings: Any) -> None:
        self.clock = SettableClock()
        self.stream = io.StringIO()
        self.observer = LogObserver(Log(**settings), self.clock, "policyd", self.stream, sums_up=sums_up)
        self.tell = tell_all(self.observer.handlers())

    def lines(self) -> list[str]:
        """What was written since this was last asked."""
        written = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        assert written == "" or written.endswith("\n")
        return written.split("\n")[:-1]

    def records(self) -> list[dict[str, str]]:
        return [fields(line) for line in self.lines()]


_FIELD = re.compile(r'([a-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?: |$)')


def fields(line: str) -> dict[str, str]:
    """A logfmt line as a reader that knows nothing of us takes it apart; fails if anything is left over."""
    found: dict[str, str] = {}
    place = 0
    while place < len(line):
        match = _FIELD.match(line, place)
        assert match is not None, f"no field at {line[place:]!r} in {line!r}"
        assert match[1] not in found, f"{match[1]} twice in {line!r}"
        found[match[1]] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        place = match.end()
    return found


def lines(logged: Logged) -> list[str]:
    """The lines, without their time."""
    return [re.sub(r"[0-9T:.-]+Z", "", line, count=1) for line in logged.lines()]


def decided(sender: str = "alice@a.example", decision: Decision | None = None, **others: str) -> Decided:
    usual: dict[str, Any] = {"instance": "7b.1", "queue_id": "4XyZ", "context": "limits"}
    facts = question(sender=sender, **usual | others)
    return Decided(facts, decision or Decision("pass", "DUNNO"), 0.0005)


REFUSED = Decision(
    "reject",
    "550 5.7.1 You are sending too much mail (limit sender, 3/minute); there is room again in 20 s",
    "limits",
    "sender",
    "alice@a.example",
    "3/3",
    (Observed("trial", "alice@a.example", "1/1"), Observed("org", "a.example", "9/9")),
)


def test_questions_that_passed_together_have_the_lines_that_they_have_one_by_one():
    asked = [decided(), decided("bob@b.example", sasl_username="bob"), decided("with space@c.example")]
    together, one_by_one = Logged(), Logged()
    together.tell(Passed(3, 0.0005, [event.facts for event in asked]))
    for event in asked:
        one_by_one.tell(event)
    assert [line.split(" ", 1)[1] for line in together.lines()] == [
        line.split(" ", 1)[1] for line in one_by_one.lines()
    ]


SCANNED = Scanned(
    "4XyZ", "192.0.2.1", "alice@a.example", 2, "tagged", "spamd", 6.5, 5.0, ("GTUBE", "X"), "", 0.25, 4096
)


@pytest.mark.parametrize("format", ["logfmt", "json"])
@given(client=ANYTHING, sender=ANYTHING, seconds=st.sampled_from([0.0, 0.25]))
def test_a_scan_with_nothing_but_a_score_has_the_line_that_any_other_has(
    format: str, client: str, sender: str, seconds: float
) -> None:
    usual, other = Logged(format=format), Logged(format=format)
    event = SCANNED._replace(client=client, sender=sender, policy="default", engine_seconds=seconds)
    usual.tell(event)
    other.observer._usual = lambda _: None  # type: ignore[method-assign, assignment]
    other.tell(event)
    assert (usual.observer._usual(event) is not None) == bool(client and seconds)
    assert lines(usual) == lines(other)


def test_a_decision_is_one_line_with_who_what_and_why():
    logged = Logged()
    logged.tell(decided(decision=REFUSED, sasl_username="alice"))
    (line,) = logged.lines()
    found = fields(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "daemon": "policyd",
        "event": "decision",
        "verdict": "reject",
        "queue_id": "4XyZ",
        "instance": "7b.1",
        "state": "RCPT",
        "context": "limits",
        "client": "192.0.2.1",
        "sender": "alice@a.example",
        "recipient": "bob@b.example",
        "check": "limits",
        "rule": "sender",
        "key": "alice@a.example",
        "action": REFUSED.reply,
        "ms": "0.500",
        "sasl_username": "alice",
        "used": "3/3",
        "observed": "trial alice@a.example 1/1; org a.example 9/9",
    }


def test_a_scan_is_one_line_without_what_is_not_known():
    logged = Logged()
    logged.tell(SCANNED)
    logged.tell(
        SCANNED._replace(outcome="unscanned", score=None, threshold=None, symbols=(), reason="deadline")
    )
    scanned, unscanned = logged.records()
    assert (scanned["event"], scanned["score"], scanned["symbols"], scanned["ms"]) == (
        "scan",
        "6.5",
        "GTUBE,X",
        "250.0",
    )
    assert unscanned["reason"] == "deadline"
    assert not {"score", "threshold", "symbols", "seconds"} & set(unscanned)


def test_a_notice_carries_its_fields_and_its_level():
    logged = Logged()
    logged.tell(notice("started", listen="inet:127.0.0.1:10040", count=3))
    logged.tell(warning("domains file: line skipped", line=7, why="not valid UTF-8"))
    started, skipped = logged.records()
    assert (started["level"], started["event"], started["listen"], started["count"]) == (
        "info",
        "started",
        "inet:127.0.0.1:10040",
        "3",
    )
    assert (skipped["level"], skipped["line"], skipped["why"]) == ("warning", "7", "not valid UTF-8")


@given(st.lists(ANYTHING, min_size=10, max_size=10))
def test_whatever_strangers_send_a_decision_is_one_line_whose_fields_are_its_own(texts):
    clean = [text.encode("utf-8", "replace").decode().replace("\n", "\t") for text in texts]
    honest, forged = Logged(), Logged()
    for logged, (sender, recipient, helo, user, queue_id, instance, key, figure, reply, client) in (
        (honest, ["x"] * 10),
        (forged, clean),
    ):
        facts = question(
            client,
            sender,
            recipient,
            helo=helo,
            sasl_username=user or "x",
            queue_id=queue_id,
            instance=instance,
        )
        decision = REFUSED._replace(key=key, reply=reply, figure=figure or "x")
        logged.tell(Decided(facts, decision, 0.0005))
    (line,) = forged.lines()
    assert line.isprintable()
    found, expected = fields(line), honest.records()[0]
    assert list(found) == list(expected)
    assert (found["event"], found["level"], found["verdict"]) == ("decision", "info", "reject")


@given(ANYTHING, ANYTHING, st.lists(ANYTHING, max_size=3))
def test_whatever_a_trouble_or_a_notice_holds_it_is_one_line(detail, field, listed):
    logged = Logged()
    logged.tell(Trouble("policy protocol error", detail))
    logged.tell(notice("started", one=field, many=listed))
    first, second = logged.lines()
    assert first.isprintable()
    assert second.isprintable()
    assert list(fields(first)) == ["time", "level", "daemon", "event", "detail"]
    assert list(fields(second)) == ["time", "level", "daemon", "event", "one", "many"]


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_whatever_strangers_send_a_scan_is_one_line_whose_fields_are_its_own(sender, client, symbol, action):
    logged = Logged()
    logged.tell(SCANNED._replace(sender=sender, client=client, symbols=(symbol,), action=action))
    (line,) = logged.lines()
    assert line.isprintable()
    assert set(fields(line)) <= {"time", "level", "daemon", "event", "ms", "engine_ms", *Scanned._fields}


@given(ANYTHING, ANYTHING, st.lists(ANYTHING, max_size=3))
def test_as_json_whatever_comes_is_one_object_a_line_in_ascii(sender, detail, listed):
    logged = Logged(format="json")
    sender = sender.encode("utf-8", "replace").decode()
    logged.tell(decided(sender, REFUSED))
    logged.tell(Trouble("policy protocol error", detail))
    logged.tell(notice("started", many=listed))
    lines = logged.lines()
    assert len(lines) == 3
    assert all(line.isascii() and line.isprintable() for line in lines)
    decision, trouble, started = map(json.loads, lines)
    assert list(decision)[:4] == ["time", "level", "daemon", "event"]
    assert decision["verdict"] == "reject"
    assert set(trouble) == {"time", "level", "daemon", "event", "detail"}
    assert len(started["many"]) == len(listed)


def test_a_text_of_unreasonable_length_is_cut():
    for form in ("logfmt", "json"):
        logged = Logged(format=form)
        logged.tell(Trouble("policy protocol error", "x" * 100_000 + "\n" * 100_000))
        (line,) = logged.lines()
        assert len(line) < 1300


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["decision", "scan", "started", "skipped", "trouble", "bad"]),
        ("info", ["decision", "scan", "started", "skipped", "trouble", "bad"]),
        ("warning", ["skipped", "trouble", "bad"]),
        ("error", ["bad"]),
    ],
)
def test_the_level_says_what_is_written(level, written):
    logged = Logged(level=level)
    for event in (decided(), SCANNED, notice("started"), warning("skipped"), Trouble("trouble", "")):
        logged.tell(event)
    logged.tell(Trouble("bad", "", "error"))
    assert [record["event"] for record in logged.records()] == written


# Repeated trouble


def test_the_same_trouble_is_written_once_and_then_summed_up_after_a_minute():
    logged = Logged()
    for i in range(400):
        logged.tell(Trouble("policy protocol error", f"number {i}"))
        logged.clock.advance(0.125)
        logged.observer.tick()
    assert [record["detail"] for record in logged.records()] == ["number 0"]
    logged.clock.advance(10.0)
    logged.observer.tick()
    (summed,) = logged.records()
    assert (summed["event"], summed["repeated"], summed["seconds"], summed["last"]) == (
        "policy protocol error",
        "399",
        "60",
        "number 399",
    )


def test_after_the_sum_the_next_one_is_written_in_full_again():
    logged = Logged()
    logged.tell(Trouble("a", "first"))
    logged.tell(Trouble("a", "second"))
    logged.clock.advance(60.0)
    logged.tell(Trouble("a", "third"))
    assert [(r.get("detail"), r.get("repeated")) for r in logged.records()] == [
        ("first", None),
        (None, "1"),
        ("third", None),
    ]


def test_a_trouble_that_was_not_repeated_is_not_summed_up():
    logged = Logged()
    logged.tell(Trouble("a", "once"))
    logged.clock.advance(1000.0)
    logged.observer.tick()
    logged.observer.close()
    assert len(logged.lines()) == 1


def test_what_another_process_has_summed_up_counts_as_often_as_it_happened():
    logged = Logged()
    logged.tell(Trouble("a", "first of three", times=3))
    logged.tell(Trouble("a", "last of two", times=2))
    logged.clock.advance(60.0)
    logged.observer.tick()
    assert [(r.get("detail"), r.get("repeated"), r.get("last")) for r in logged.records()] == [
        ("first of three", None, None),
        (None, "4", "last of two"),
    ]


def test_decisions_that_another_process_did_not_write_are_summed_up_with_our_own():
    worker = Logged(sums_up=False, decisions=Rate(1, 1.0))
    daemon = Logged(decisions=Rate(1, 1.0))
    for logged in (worker, daemon):
        for _ in range(2):
            logged.tell(decided())
    worker.clock.advance(2.0)
    worker.observer.tick()
    daemon.observer.add_unwritten(worker.observer.take_unwritten())
    daemon.observer.add_unwritten(worker.observer.take_unwritten())
    daemon.clock.advance(2.0)
    daemon.observer.tick()
    assert [record["event"] for record in worker.records()] == ["decision"]
    assert [(record["event"], record.get("count")) for record in daemon.records()] == [
        ("decision", None),
        ("decisions not written", "2"),
    ]


def test_lines_of_another_process_go_out_as_they_are():
    logged = Logged()
    logged.observer.pass_on("one line\nanother\n")
    assert logged.lines() == ["one line", "another"]


def test_one_trouble_hides_no_other():
    logged = Logged()
    for what in ("a", "b", "a", "c", "b"):
        logged.tell(Trouble(what, ""))
    assert [record["event"] for record in logged.records()] == ["a", "b", "c"]


def test_at_the_end_what_was_summed_up_is_written():
    logged = Logged()
    for i in range(5):
        logged.tell(Trouble("a", f"number {i}"))
    logged.clock.advance(7.0)
    logged.observer.close()
    first, last = logged.records()
    assert first["detail"] == "number 0"
    assert (last["repeated"], last["seconds"], last["last"]) == ("4", "7", "number 4")


def test_a_storm_of_troubles_over_an_hour_is_a_line_or_two_a_minute():
    logged = Logged()
    for _ in range(3600):
        for what in ("a", "b"):
            logged.tell(Trouble(what, "x"))
        logged.clock.advance(1.0)
        logged.observer.tick()
    assert len(logged.lines()) <= 2 * 2 * 61


# The rate of decisions


def test_decisions_above_the_rate_are_counted_and_told():
    logged = Logged(decisions=Rate(10, 1.0))
    for _ in range(35):
        logged.tell(decided())
    assert len(logged.lines()) == 10
    logged.clock.advance(1.0)
    logged.observer.tick()
    (told,) = logged.records()
    assert (told["level"], told["event"], told["count"], told["reason"]) == (
        "warning",
        "decisions not written",
        "25",
        "log.decisions",
    )


def test_scans_and_decisions_share_the_rate():
    logged = Logged(decisions=Rate(4, 1.0))
    for _ in range(4):
        logged.tell(decided())
        logged.tell(SCANNED)
    assert [record["event"] for record in logged.records()] == ["decision", "scan"] * 2


@pytest.mark.parametrize(("count", "period"), [(1, 1.0), (100, 1.0), (90, 60.0), (6, 60.0), (60, 3600.0)])
def test_no_period_has_more_lines_of_decisions_than_its_rate(count, period):
    logged = Logged(decisions=Rate(count, period))
    written = 0
    for _ in range(3000):
        logged.tell(decided())
        logged.clock.advance(period / 1000)
        written += sum(record["event"] == "decision" for record in logged.records())
    assert written == 3 * count


def test_troubles_and_notices_are_written_even_when_the_rate_is_used_up():
    logged = Logged(decisions=Rate(1, 1.0))
    for _ in range(10):
        logged.tell(decided())
    logged.lines()
    logged.tell(Trouble("a", ""))
    logged.tell(notice("reloaded"))
    assert [record["event"] for record in logged.records()] == ["a", "reloaded"]


@pytest.mark.parametrize("period", [1.0, 60.0, 86400.0])
def test_how_many_are_missing_is_told_within_a_minute_whatever_the_rate(period):
    logged = Logged(decisions=Rate(1, period))
    for _ in range(10):
        logged.tell(decided())
    logged.lines()
    logged.clock.advance(60.0)
    logged.observer.tick()
    assert [record["count"] for record in logged.records()] == ["9"]


def test_at_the_end_decisions_that_were_not_written_are_told():
    logged = Logged(decisions=Rate(1, 1.0))
    for _ in range(10):
        logged.tell(decided())
    logged.lines()
    logged.observer.close()
    assert [(r["event"], r["count"]) for r in logged.records()] == [("decisions not written", "9")]


def test_a_stream_that_fails_stops_nothing():
    class Broken(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device")

    observer = LogObserver(Log(), SettableClock(), "policyd", Broken())
    tell = tell_all(observer.handlers())
    for event in (decided(), SCANNED, Trouble("a", ""), notice("b")):
        tell(event)
    observer.tick()
    observer.close()


def test_with_a_later_lines_are_collected_until_it_comes():
    waiting: list[Any] = []
    stream = io.StringIO()
    observer = LogObserver(Log(), SettableClock(), "policyd", stream, waiting.append)
    tell = tell_all(observer.handlers())
    for _ in range(3):
        tell(decided())
    assert (stream.getvalue(), len(waiting)) == ("", 1)
    waiting.pop()()
    assert stream.getvalue().count("\n") == 3
