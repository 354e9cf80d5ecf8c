import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.config import loads
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limits
from mxweir.testing import SettableClock
from mxweir_milter.allow import Allowed
from mxweir_milter.changes import Answer
from mxweir_milter.limits import Asking
from mxweir_milter.policy import Rule, Treatment, Treatments
from mxweir_milter.room import Room
from mxweir_milter.session import Concluded, Policy, Session, Wanted
from mxweir_milter.testing import score
from mxweir_milter.verdict import Failed, Reason, Result, Thresholds

POLICY = Policy(
    deadline=8.0,
    max_scan_size=1000,
    treatments=Treatments(Treatment(thresholds=Thresholds(5.0, 8.0, 12.0))),
    allowed=None,
    skip=frozenset({"authenticated", "mynetworks"}),
    mynetworks=(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8:1::/48")),
    has_engine=True,
)

STRICT = Treatment("strict", 0, Thresholds(2.0, reject_at=4.0), reject_text="No spam, please")
TREATMENTS = Treatments(
    Treatment("default", 2, Thresholds(5.0, 8.0, 12.0)),
    [
        Rule(
            Treatment("strict", 0, Thresholds(2.0, reject_at=4.0), reject_text="No spam, please"),
            ("strict.example",),
        ),
        Rule(Treatment("mild", 1, Thresholds(6.0)), ("mild.example",)),
    ],
)


class Setting:
    """A session with its policy and clocks, and a way through one message."""

    def __init__(self, **changes):
        self.policy = replace(POLICY, **changes)
        self.clock = SettableClock()
        self.monotonic = SettableClock(100.0)
        self.room = Room(10**9)
        self.session = Session(lambda: self.policy, self.clock, self.monotonic, self.room)
        self.session.connect("mail.sender.example", "203.0.113.9", {"j": "mx.example.org"})
        self.session.helo("helo.sender.example", {})

    def envelope(
        self, sender=b"<a@sender.example>", recipients=(b"<b@example.org>",), macros=None, params=()
    ):
        self.session.mail(sender, params, macros or {})
        for recipient in recipients:
            self.session.rcpt(recipient)

    def content(self, headers=((b"Subject", b" hello"),), body=(b"hello\r\n",)):
        for name, value in headers:
            self.session.header(name, value)
        for piece in body:
            self.session.body(piece)
        return self.session.end({"i": "4XyZ1"})

    def message(self, **envelope):
        self.envelope(**envelope)
        assert self.session.data({"i": "4XyZ1"}) is None
        return self.content()


def test_a_message_is_handed_over_with_all_that_is_known_of_it():
    setting = Setting()
    wanted = setting.message()
    assert isinstance(wanted, Wanted)
    message = wanted.message
    assert message.content == b"Subject: hello\r\n\r\nhello\r\n"
    assert (message.client.name, message.client.address) == ("mail.sender.example", "203.0.113.9")
    assert (message.client.helo, message.client.host) == ("helo.sender.example", "mx.example.org")
    assert message.envelope.sender == "a@sender.example"
    assert message.envelope.recipients == ("b@example.org",)
    assert message.envelope.queue_id == "4XyZ1"
    assert message.arrived == setting.clock.now


def test_a_client_without_a_verified_name_is_unknown_as_in_postfixs_own_header():
    setting = Setting()
    setting.session.connect("[203.0.113.9]", "203.0.113.9", {})
    wanted = setting.message()
    assert isinstance(wanted, Wanted)
    assert wanted.message.client.name == "unknown"


def test_the_deadline_runs_from_the_end_of_the_message():
    setting = Setting(deadline=3.0)
    setting.envelope()
    setting.monotonic.advance(60.0)
    wanted = setting.content()
    assert isinstance(wanted, Wanted)
    assert wanted.deadline.at == 160.0 + 3.0 - 0.1


@pytest.mark.parametrize(("deadline", "scanning"), [(0.1, 0.095), (2.0, 1.9), (8.0, 7.9), (240.0, 239.9)])
def test_scanning_ends_so_early_that_the_answer_is_there_by_the_deadline(deadline, scanning):
    setting = Setting(deadline=deadline)
    setting.envelope()
    wanted = setting.content()
    assert isinstance(wanted, Wanted)
    assert wanted.deadline.left() == pytest.approx(scanning)


def test_the_record_tells_the_message_its_score_and_how_long_it_took():
    setting = Setting()
    setting.message()
    setting.monotonic.advance(0.25)
    event = setting.session.conclude(score(7.0)).event
    assert (event.queue_id, event.client, event.sender) == ("4XyZ1", "203.0.113.9", "a@sender.example")
    assert (event.recipients, event.outcome, event.engine) == (1, "tagged", "spamd")
    assert (event.score, event.threshold, event.symbols) == (7.0, 5.0, ("SOME_RULE",))
    assert (event.reason, event.seconds, event.action) == ("", 0.25, "")
    assert event.size > 0


def test_a_refusal_is_told_in_the_record():
    setting = Setting()
    setting.message()
    event = setting.session.conclude(score(20.0)).event
    assert event.outcome == "rejected"
    assert event.action.startswith("550 5.7.1 ")


@pytest.mark.parametrize(
    ("address", "macros", "skipped"),
    [
        ("203.0.113.9", {}, ""),
        ("192.0.2.7", {}, "mynetworks"),
        ("IPv6:2001:db8:1::5", {}, "mynetworks"),
        ("::ffff:192.0.2.7", {}, "mynetworks"),
        ("", {}, ""),
        ("unknown", {}, ""),
        ("203.0.113.9", {"{auth_authen}": "bob"}, "authenticated"),
    ],
)
def test_mail_of_our_networks_and_users_is_passed_over(address, macros, skipped):
    setting = Setting()
    setting.session.connect("x", address, {})
    setting.envelope(macros=macros)
    concluded = setting.session.data({"i": "4XyZ1"})
    assert (concluded is not None) == bool(skipped)
    if concluded:
        assert (concluded.event.outcome, concluded.event.reason) == ("skipped", skipped)
        assert concluded.event.queue_id == "4XyZ1"
        assert (concluded.answer.add, concluded.answer.remove) == ((), ())


def test_mail_is_passed_over_at_its_end_where_the_mail_server_does_not_tell_of_data():
    setting = Setting()
    setting.envelope(macros={"{auth_authen}": "bob"})
    concluded = setting.content(headers=((b"X-Spam-Flag", b" NO"),))
    assert isinstance(concluded, Concluded)
    assert (concluded.event.outcome, concluded.event.reason) == ("skipped", "authenticated")
    assert concluded.answer == Answer()
    assert setting.room.used == 0


def test_nothing_is_passed_over_when_the_configuration_names_nothing():
    setting = Setting(skip=frozenset())
    setting.session.connect("x", "192.0.2.7", {})
    setting.envelope(macros={"{auth_authen}": "bob"})
    assert setting.session.data({}) is None


def test_authentication_belongs_to_one_message():
    setting = Setting()
    setting.envelope(macros={"{auth_authen}": "bob"})
    assert setting.session.data({}) is not None
    setting.envelope()
    assert setting.session.data({}) is None


# Policies and the access list


def test_the_mildest_policy_of_all_recipients_decides_and_the_record_names_it_and_those_it_overrules():
    setting = Setting(treatments=TREATMENTS)
    setting.message(recipients=[b"<a@example.org>", b"<b@strict.example>", b"<c@mild.example>"])
    concluded = setting.session.conclude(score(13.0))
    assert concluded.answer.reply is None
    assert dict(concluded.answer.add)["X-Spam-Status"].startswith("Yes, score=13.0 required=6.0 ")
    event = concluded.event
    assert (event.outcome, event.policy, event.threshold) == ("tagged", "mild", 6.0)
    assert event.overruled == "default:rejected strict:rejected"


def test_a_single_recipient_gets_the_policy_of_its_domain():
    setting = Setting(treatments=TREATMENTS)
    setting.message(recipients=[b"<b@STRICT.example>"])
    concluded = setting.session.conclude(score(4.0))
    assert str(concluded.answer.reply) == "550 5.7.1 No spam, please (score 4.0, limit 4.0, id 4XyZ1)"
    assert (concluded.event.policy, concluded.event.overruled) == ("strict", "")


def test_recipients_beyond_those_that_are_kept_count_too():
    setting = Setting(treatments=TREATMENTS)
    recipients = [b"<r%d@strict.example>" % i for i in range(1500)]
    setting.message(recipients=[*recipients, b"<last@mild.example>"])
    assert setting.session.conclude(score(13.0)).event.policy == "mild"


def test_policies_of_one_message_mean_nothing_to_the_next():
    setting = Setting(treatments=TREATMENTS)
    setting.message(recipients=[b"<c@mild.example>"])
    setting.session.conclude(score(0.0))
    setting.message(recipients=[b"<b@strict.example>"])
    assert setting.session.conclude(score(5.0)).event.policy == "strict"


def test_of_a_hundred_policies_that_are_overruled_a_few_are_named():
    rules = [Rule(Treatment(f"p{i}", i, Thresholds(reject_at=6.0)), (f"d{i}.example",)) for i in range(100)]
    setting = Setting(treatments=Treatments(Treatment(place=100), rules))
    setting.message(recipients=[b"<a@example.org>", *(b"<a@d%d.example>" % i for i in range(100))])
    told = setting.session.conclude(score(7.0)).event.overruled
    assert told.startswith("p99:rejected p98:rejected ")
    assert told.endswith(" and 92 more")


@pytest.mark.parametrize(
    ("subject", "change", "added"),
    [
        ([(b"Subject", b" Buy"), (b"SUBJECT", b" two")], (("Subject", 1, "[SPAM] Buy"),), ()),
        ([(b"sUbJeCt", b"")], (("Subject", 1, "[SPAM]"),), ()),
        ([(b"Subject", b" [SPAM] Buy")], (), ()),
        ([], (), (("Subject", "[SPAM]"),)),
    ],
)
def test_the_first_subject_is_rewritten_where_a_policy_says_so(subject, change, added):
    setting = Setting(treatments=Treatments(Treatment(thresholds=Thresholds(rewrite_subject_at=6.0))))
    setting.envelope()
    setting.content(headers=[(b"From", b" a@b.example"), *subject])
    answer = setting.session.conclude(score(6.0)).answer
    assert answer.change == change
    assert answer.add[4:] == added


def test_no_subject_is_touched_by_default_or_below_the_threshold():
    for treatment in (Treatment(), Treatment(thresholds=Thresholds(rewrite_subject_at=6.0))):
        setting = Setting(treatments=Treatments(treatment))
        setting.message()
        assert setting.session.conclude(score(5.9)).answer.change == ()


ALLOW = """
    [[access]]
    allow = "client_address"
    value = "192.0.2.99"
    [[access]]
    allow = "recipient"
    value = "abuse@example.org"
    [[access]]
    block = "sender"
    value = "a@sender.example"
    [[access]]
    allow = "sender_org"
    value = "sender.example"
"""


def allowing(**envelope):
    setting = Setting(allowed=Allowed(loads(ALLOW).access, Folder()), skip=frozenset())
    setting.envelope(**envelope)
    return setting, setting.session.data({"i": "4XyZ1"})


@pytest.mark.parametrize(
    ("sender", "recipients", "rule"),
    [
        (b"<b@sender.example>", [b"<b@example.org>", b"<c@example.org>"], "allow sender_org"),
        (b"<a@sender.example>", [b"<b@example.org>"], ""),
        (b"<a@sender.example>", [b"<Abuse@example.org>"], "allow recipient"),
        (b"<a@sender.example>", [b"<abuse@example.org>", b"<b@example.org>"], ""),
        (b"<x@other.example>", [], ""),
    ],
)
def test_a_message_is_not_scanned_when_the_access_list_allows_all_its_recipients(sender, recipients, rule):
    _, concluded = allowing(sender=sender, recipients=recipients)
    assert (concluded.event.reason if concluded else "") == rule
    if concluded:
        assert concluded.event.outcome == "skipped"


def test_what_an_allowed_recipient_gets_with_others_is_marked_at_most():
    setting, concluded = allowing(recipients=[b"<abuse@example.org>", b"<b@example.org>"])
    assert concluded is None
    setting.content()
    done = setting.session.conclude(score(20.0))
    assert done.answer.reply is None
    assert not done.answer.hold
    assert dict(done.answer.add)["X-Spam-Flag"] == "YES"
    assert (done.event.policy, done.event.overruled) == ("allow recipient", "default:rejected")


def test_a_message_above_the_limit_is_not_scanned_and_says_so():
    setting = Setting()
    setting.envelope()
    concluded = setting.content(body=[b"x" * 999, b"y" * 5])
    assert isinstance(concluded, Concluded)
    assert concluded.event.reason == "too large"
    assert concluded.answer.add == (("X-Spam-Status", "unscanned, reason=too large"),)


def test_no_further_piece_is_wanted_above_the_limit():
    setting = Setting()
    setting.envelope()
    assert setting.session.body(b"x" * 1000)
    assert not setting.session.body(b"x")


def test_without_an_engine_mail_is_marked():
    concluded = Setting(has_engine=False).message()
    assert isinstance(concluded, Concluded)
    assert concluded.event.reason == "no engine"


def test_after_a_fault_of_ours_the_message_is_not_scanned():
    setting = Setting()
    setting.envelope()
    setting.session.fail()
    concluded = setting.content()
    assert isinstance(concluded, Concluded)
    assert concluded.event.reason == "internal error"


def test_after_a_fault_at_its_answer_a_message_is_still_its_recipients_and_its_forged_fields_go(monkeypatch):
    def boom(*_):
        raise RuntimeError("boom")

    setting = Setting(treatments=TREATMENTS)
    setting.envelope(recipients=(b"<b@mild.example>",))
    setting.content(headers=((b"X-Spam-Flag", b" NO"),))
    with monkeypatch.context() as patch:
        patch.setattr("mxweir_milter.changes.number", boom)
        with pytest.raises(RuntimeError):
            setting.session.conclude(score(1.0))
    concluded = setting.session.conclude(Failed(Reason.INTERNAL))
    answer, event = concluded.answer, concluded.event
    assert (event.queue_id, event.sender, event.recipients) == ("4XyZ1", "a@sender.example", 1)
    assert event.policy == "mild"
    assert answer.remove == (("x-spam-flag", 1),)
    assert not setting.session.in_message
    assert setting.room.used == 0


@pytest.mark.parametrize("step", ["connect", "helo"])
def test_after_a_fault_before_a_message_has_begun_none_is_in_hand(step):
    setting = Setting()
    setting.session.fail(step)
    assert not setting.session.in_message
    assert isinstance(setting.message(), Wanted)


def test_a_fault_belongs_to_one_message():
    setting = Setting()
    setting.envelope()
    setting.session.fail()
    setting.content()
    assert isinstance(setting.message(), Wanted)


def test_a_message_with_too_many_forged_fields_is_refused_unscanned():
    setting = Setting(max_scan_size=10**6)
    setting.envelope()
    concluded = setting.content(headers=[(b"X-Spam-Flag", b" NO")] * 5000)
    assert isinstance(concluded, Concluded)
    assert concluded.event.outcome == "rejected"
    assert concluded.answer.reply is not None


def test_a_message_with_too_many_forged_fields_is_refused_however_large_it_is():
    setting = Setting()
    setting.envelope()
    concluded = setting.content(headers=[(b"X-Spam-Flag", b" NO" + b"x" * 1000)] * 5000)
    assert isinstance(concluded, Concluded)
    assert concluded.event.outcome == "rejected"


def test_forged_fields_are_removed_also_from_mail_that_is_not_scanned():
    setting = Setting()
    setting.envelope()
    setting.content(headers=[(b"X-Spam-Flag", b" NO")])
    assert setting.session.conclude(Failed(Reason.DEADLINE)).answer.remove == (("x-spam-flag", 1),)


def test_an_aborted_message_leaves_nothing_to_the_next_one():
    setting = Setting()
    setting.envelope(recipients=(b"<x@example.org>", b"<y@example.org>"))
    setting.session.header(b"X-Spam-Flag", b" NO")
    setting.session.abort()
    assert not setting.session.in_message
    wanted = setting.message()
    assert isinstance(wanted, Wanted)
    assert wanted.message.envelope.recipients == ("b@example.org",)
    assert setting.session.conclude(score(0.0)).answer.remove == ()


def test_a_second_message_of_the_session_starts_anew():
    setting = Setting()
    setting.message()
    setting.session.conclude(score(0.0))
    assert not setting.session.in_message
    wanted = setting.message(sender=b"<>")
    assert isinstance(wanted, Wanted)
    assert wanted.message.envelope.sender == ""


def test_a_new_policy_holds_from_the_next_message_on():
    setting = Setting()
    setting.envelope()
    setting.policy = replace(setting.policy, has_engine=False)
    assert isinstance(setting.content(), Wanted)
    setting.session.conclude(score(0.0))
    assert isinstance(setting.message(), Concluded)


def test_encryption_is_learnt_at_the_greeting_after_starttls():
    setting = Setting()
    setting.session.helo("h", {"{tls_version}": "TLSv1.3", "{cipher}": "AES", "{cipher_bits}": "256"})
    wanted = setting.message()
    assert isinstance(wanted, Wanted)
    assert wanted.message.client.tls is not None
    assert wanted.message.client.tls.version == "TLSv1.3"


def test_a_lost_mail_command_still_gives_a_message():
    setting = Setting()
    wanted = setting.content()
    assert isinstance(wanted, Wanted)
    assert setting.session.conclude(score(0.0)).event.sender == ""


def test_recipients_are_counted_beyond_those_that_are_kept():
    setting = Setting()
    wanted = setting.message(recipients=[b"<r%d@example.org>" % i for i in range(1500)])
    assert isinstance(wanted, Wanted)
    assert wanted.message.envelope.recipient_count == 1500
    assert len(wanted.message.envelope.recipients) == 1000


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"<>", ""),
        (b"<a@b.example>", "a@b.example"),
        (b"a@b.example", "a@b.example"),
        (b'<"q s"@b.example>', '"q s"@b.example'),
        ("<é@bücher.example>".encode(), "é@bücher.example"),
        (b"<\xff@b.example>", "\udcff@b.example"),
        (b"", ""),
    ],
)
def test_addresses_lose_their_brackets_and_no_byte(raw, text):
    setting = Setting()
    wanted = setting.message(sender=raw)
    assert isinstance(wanted, Wanted)
    assert wanted.message.envelope.sender == text


@given(st.binary(max_size=30), st.lists(st.binary(max_size=30)), st.text(max_size=30), st.text(max_size=30))
def test_no_input_makes_a_session_raise(raw, pieces, text, address):
    setting = Setting()
    session, macros = setting.session, {"i": text, "{auth_authen}": text, "j": text, "{tls_version}": text}
    session.connect(text, address, macros)
    session.helo(text, macros)
    session.mail(raw, pieces, macros)
    session.rcpt(raw)
    session.data(macros)
    for piece in pieces:
        session.header(piece, raw)
        session.body(piece)
    if isinstance(session.end(macros), Wanted):
        session.conclude(score(0.0))
    session.abort()


def limits(unit: str = "message", more: str = "") -> Asking:
    """One limit by content, which has room for one message."""
    text = f'[[limit]]\nname = "n"\nkey = "from"\nunit = "{unit}"\nrate = "1/day"\n{more}'
    return Asking(FOLDER, Limits(loads(text).limit, FOLDER))


FOLDER = Folder()
FROM = ((b"From", b" Anna <anna@shop.example>"),)


def asked(setting: Setting, wanted: Wanted | Concluded) -> Concluded:
    """What becomes of a message when its limits were asked, and the scanner found little."""
    assert isinstance(wanted, Wanted)
    question = wanted.message.question
    assert question is not None
    assert setting.policy.limits is not None
    question.outcome = setting.policy.limits.limits.decide(question.facts, setting.clock())
    return setting.session.conclude(question.instead or score(1.0))


def through(setting: Setting, headers=FROM, body=(b"hello\r\n",), **envelope) -> Concluded:
    setting.envelope(**envelope)
    assert setting.session.data({"i": "4XyZ1"}) is None
    return asked(setting, setting.content(headers, body))


def test_a_message_is_refused_by_a_limit_of_its_content_whatever_its_score():
    setting = Setting(limits=limits())
    first = through(setting)
    setting.monotonic.advance(1.0)
    second = through(setting, sender=b"<other@sender.example>")
    assert first.event.outcome == "ham"
    assert second.event.outcome == "limited"
    assert (second.event.limit, second.event.key, second.event.used) == ("n", "anna@shop.example", "1/1")
    reply = second.answer.reply
    assert reply is not None
    assert str(reply) == second.event.action
    assert str(reply).startswith("550 5.7.1 You are sending too much mail (limit n, 1/day); there is room")
    assert not setting.session.in_message


def test_without_such_limits_a_message_brings_no_question():
    wanted = Setting().message()
    assert isinstance(wanted, Wanted)
    assert wanted.message.question is None


@pytest.mark.parametrize(
    ("changes", "macros", "reason"),
    [
        ({}, {"{auth_authen}": "anna"}, "authenticated"),
        ({"mynetworks": (ipaddress.ip_network("203.0.113.0/24"),)}, {}, "mynetworks"),
    ],
)
def test_mail_that_is_not_scanned_is_counted_without_its_body(changes, macros, reason):
    setting = Setting(limits=limits(), **changes)
    setting.envelope(macros=macros)
    assert setting.session.data({"i": "A1"}) is None
    setting.session.header(*FROM[0])
    assert not setting.session.body(b"hello")
    skipped = asked(setting, setting.session.end({"i": "A1"}))
    assert (skipped.event.outcome, skipped.event.reason, skipped.answer) == ("skipped", reason, Answer())
    assert through(setting, macros=macros, sender=b"<b@b.example>").event.outcome == "limited"


def test_recipients_whom_the_access_list_allows_do_not_count_and_mail_to_nobody_else_is_not_asked_about():
    access = loads('[[access]]\nallow = "recipient"\nvalue = "abuse@example.org"').access
    setting = Setting(limits=limits(), allowed=Allowed(access, FOLDER))
    setting.envelope(recipients=(b"<abuse@example.org>",))
    passed = setting.session.data({"i": "A1"})
    assert isinstance(passed, Concluded)
    assert passed.event.reason == "allow recipient"
    setting.envelope(recipients=(b"<abuse@example.org>", b"<b@example.org>"))
    wanted = setting.content(FROM)
    assert isinstance(wanted, Wanted)
    assert wanted.message.question is not None
    assert wanted.message.question.facts.recipient_count == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"max_scan_size": 10}, Reason.TOO_LARGE), ({"has_engine": False}, Reason.NO_ENGINE)],
)
def test_what_cannot_be_scanned_is_counted_first_and_then_unscanned_for_its_own_reason(changes, reason):
    setting = Setting(limits=limits(), **changes)
    first = through(setting)
    assert (first.event.outcome, first.event.reason) == ("unscanned", reason.value)
    assert through(setting, sender=b"<b@b.example>").event.outcome == "limited"


def test_where_a_limit_counts_bytes_all_of_a_large_or_skipped_message_is_wanted():
    setting = Setting(limits=limits("byte"), max_scan_size=10)
    for macros in ({}, {"{auth_authen}": "anna"}):
        setting.envelope(macros=macros)
        setting.session.data({"i": "A1"})
        setting.session.header(*FROM[0])
        assert all(setting.session.body(b"x" * 50) for _ in range(3))
        wanted = setting.session.end({"i": "A1"})
        assert isinstance(wanted, Wanted)
        assert wanted.message.question is not None
        assert wanted.message.question.facts.size_in_bytes == 150 + len(b"From: Anna <anna@shop.example>\r\n")


def test_a_message_that_is_deferred_for_want_of_an_engine_is_charged_once_however_often_it_comes():
    setting = Setting(limits=limits(), treatments=Treatments(Treatment(unscanned="defer")))
    away = Failed(Reason.BREAKER_OPEN)

    def comes(queue_id: str, result: Result, sender: bytes = b"<a@sender.example>") -> str:
        setting.envelope(sender=sender)
        setting.session.header(*FROM[0])
        wanted = setting.session.end({"i": queue_id})
        assert isinstance(wanted, Wanted)
        if question := wanted.message.question:
            assert setting.policy.limits is not None
            question.outcome = setting.policy.limits.limits.decide(question.facts, setting.clock())
        return str(setting.session.conclude(result).answer.reply or "")[:3]

    assert [comes(f"A{number}", away) for number in range(4)] == ["451"] * 4
    assert comes("B1", away, b"<b@b.example>") == "550"
    assert comes("A5", score(1.0)) == ""
    # It was accepted now and does not come again: one that is the same is another one.
    assert comes("A6", score(1.0)) == "550"


def test_a_message_whose_limits_nobody_asked_goes_its_way():
    setting = Setting(limits=limits())
    for _ in range(2):
        setting.envelope()
        assert isinstance(setting.content(FROM), Wanted)
        assert setting.session.conclude(score(1.0)).event.outcome == "ham"


def test_a_limit_that_observes_is_told_with_the_scans_result():
    setting = Setting(limits=limits(more='mode = "observe"'))
    through(setting)
    event = through(setting, sender=b"<b@b.example>").event
    assert (event.outcome, event.limit) == ("ham", "")
    assert [(one.rule, one.key, one.figure) for one in event.observed] == [("n", "anna@shop.example", "1/1")]


def test_after_a_fault_a_message_is_not_counted():
    setting = Setting(limits=limits())
    setting.envelope()
    setting.session.fail()
    concluded = setting.content(FROM)
    assert isinstance(concluded, Concluded)
    assert concluded.event.reason == "internal error"
