import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir.testing import SettableClock
from mxweir_milter.session import Concluded, Policy, Session, Wanted
from mxweir_milter.testing import score
from mxweir_milter.verdict import Failed, Reason, Thresholds

POLICY = Policy(
    deadline=8.0,
    max_scan_size=1000,
    thresholds=Thresholds(5.0, 8.0, 12.0),
    unscanned="accept",
    skip=frozenset({"authenticated", "mynetworks"}),
    mynetworks=(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8:1::/48")),
    has_engine=True,
)


class Setting:
    """A session with its policy and clocks, and a way through one message."""

    def __init__(self, **changes):
        self.policy = replace(POLICY, **changes)
        self.clock = SettableClock()
        self.monotonic = SettableClock(100.0)
        self.session = Session(lambda: self.policy, self.clock, self.monotonic)
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
    assert wanted.deadline.left() == 3.0


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
        ("203.0.113.9", {}, False),
        ("192.0.2.7", {}, True),
        ("IPv6:2001:db8:1::5", {}, True),
        ("::ffff:192.0.2.7", {}, True),
        ("", {}, False),
        ("unknown", {}, False),
        ("203.0.113.9", {"{auth_authen}": "bob"}, True),
    ],
)
def test_mail_of_our_networks_and_users_is_passed_over(address, macros, skipped):
    setting = Setting()
    setting.session.connect("x", address, {})
    setting.envelope(macros=macros)
    concluded = setting.session.data({"i": "4XyZ1"})
    assert (concluded is not None) == skipped
    if concluded:
        assert concluded.event.outcome == "skipped"
        assert concluded.event.queue_id == "4XyZ1"
        assert (concluded.answer.add, concluded.answer.remove) == ((), ())


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
