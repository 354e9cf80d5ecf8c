"""Commands in, packets out; what libmilter's front is asked in the same words stands in test_libmilter.py."""

from dataclasses import replace

import pytest

from mxweir.events import Scanned, Trouble
from mxweir.testing import Recorder, SettableClock
from mxweir_milter.fronts import codec
from mxweir_milter.fronts.codec import ProtocolError
from mxweir_milter.fronts.dialogue import Dialogue, Spoken
from mxweir_milter.fronts.options import Stage, Step
from mxweir_milter.policy import Treatment, Treatments
from mxweir_milter.room import Room
from mxweir_milter.session import Policy, Session, Wanted
from mxweir_milter.testing import score
from mxweir_milter.verdict import Failed, Reason, Thresholds

TREATMENT = Treatment(thresholds=Thresholds(5.0, 8.0, 12.0))
POLICY = Policy(8.0, 1000, Treatments(TREATMENT), None, frozenset({"authenticated"}), (), True)
POSTFIX = codec.Negotiate(6, 0x1FF, 0x1FFFFF)
WAITING = codec.Negotiate(6, 0x1FF, 0x1FFFFF & ~(Step.NO_REPLY_DATA | Step.NO_REPLY_BODY))
"""A mail server that waits at DATA and at each piece of the body."""
OLD = codec.Negotiate(2, 0x3F, 0x7F)


class Mail:
    """A dialogue, and a way through one message."""

    def __init__(self, result=None, policy=POLICY, offered=POSTFIX, **macros):
        self.policy = policy
        self.result = result or score(1.0)
        self.scanned = []
        self.recorder = Recorder()
        self.room = Room(10**9)
        clock = SettableClock()
        self.dialogue = Dialogue(lambda: Session(lambda: self.policy, clock, clock, self.room), self.recorder)
        self.agreed = self.dialogue.take(offered)
        self.macros = {"{auth_authen}": macros["auth_authen"]} if macros else {}

    def take(self, *commands):
        return [self.dialogue.take(command) for command in commands]

    def until_data(self):
        return self.take(
            codec.Connect(b"mail.sender.example", b"4", 4711, b"203.0.113.9"),
            codec.Helo(b"helo.sender.example"),
            codec.Define(b"M", {"i": "4XyZ1", **self.macros}),
            codec.Mail(b"<a@sender.example>", [b"SIZE=100"]),
            codec.Rcpt(b"<b@example.org>", [b"NOTIFY=NEVER"]),
            codec.Data(),
        )

    def send(self, headers=((b"Subject", b" hello"),), body=b"hello\r\n"):
        """The packets of the answer, each as letter and data."""
        self.until_data()
        self.take(*(codec.Header(*header) for header in headers), codec.Body(body))
        said = self.dialogue.take(codec.End(b""))
        if isinstance(said, Wanted):
            self.scanned.append(said.message)
            said = self.dialogue.conclude(self.result)
        assert isinstance(said, Spoken)
        self.dialogue.heard(said.event)
        return packets(said.packets)

    def events(self, kind):
        return [event for event in self.recorder.events if isinstance(event, kind)]

    def scans(self):
        return [(event.outcome, event.reason) for event in self.events(Scanned)]


def packets(data):
    found = []
    while data:
        length = int.from_bytes(data[:4])
        found.append((data[4:5], data[5 : 4 + length]))
        data = data[4 + length :]
    return found


def letters(said):
    return [packets(data)[0][0] if data else b"" for data in said]


def treated(**changes):
    return replace(POLICY, treatments=Treatments(replace(TREATMENT, **changes)))


def test_steps_where_we_have_nothing_to_say_cost_postfix_no_wait():
    assert letters(Mail().until_data()) == [b"", b"", b"", b"", b"", b""]
    assert Mail().take(codec.Body(b"x" * 2000)) == [b""]


def test_an_old_mail_server_that_cannot_do_without_replies_gets_them():
    assert letters(Mail(offered=OLD).until_data()) == [b"c", b"c", b"", b"c", b"c", b"c"]


def test_only_what_is_offered_and_used_is_agreed_on_and_with_it_the_macros_that_are_read():
    ((letter, data),) = packets(Mail().agreed)
    assert letter == b"O"
    version, actions, steps = (int.from_bytes(data[i : i + 4]) for i in (0, 4, 8))
    assert (version, actions) == (6, 0x1 | 0x10 | 0x20 | 0x100)
    assert steps & Step.SKIP
    assert steps & Step.HEADER_LEADING_SPACE
    assert steps & Step.NO_REPLY_DATA
    assert b"\0\0\0\2i {auth_authen}" in data
    assert (
        packets(Mail(offered=OLD).agreed)[0][1] == bytes(3) + b"\2" + bytes(3) + b"\x31" + bytes(3) + b"\x40"
    )


def test_no_macro_is_sent_for_recipients_header_fields_and_the_body():
    """An empty list would stand for the usual ones, and those of a header field come with each of them."""
    ((_, data),) = packets(Mail().agreed)
    for stage in (Stage.RCPT, Stage.END_OF_HEADER, Stage.END):
        assert stage.to_bytes(4) + b"{none}\0" in data


@pytest.mark.parametrize("command", [codec.Data(), codec.Abort(), codec.Define(b"C", {}), codec.End(b"")])
def test_nothing_comes_before_the_negotiation(command):
    clock = SettableClock()
    dialogue = Dialogue(lambda: Session(lambda: POLICY, clock, clock, Room(1)), Recorder())
    with pytest.raises(ProtocolError, match="the first command is no negotiation"):
        dialogue.take(command)


def test_a_message_is_scanned_and_accepted_with_our_fields():
    mail = Mail()
    answer = mail.send()
    assert mail.scanned[0].content == b"Subject: hello\r\n\r\nhello\r\n"
    assert answer[0] == (b"h", b"X-Spam-Flag\0 NO\0")
    assert answer[-1] == (b"a", b"")
    assert mail.scans() == [("ham", "")]


def test_a_body_that_comes_with_its_end_is_scanned_too():
    mail = Mail()
    mail.until_data()
    wanted = mail.dialogue.take(codec.End(b"all of it"))
    assert isinstance(wanted, Wanted)
    assert wanted.message.content == b"\r\nall of it\r\n"


def test_forged_fields_are_removed_before_ours_are_added():
    answer = Mail().send(headers=[(b"X-Spam-Flag", b" NO"), (b"X-SPAM-FLAG", b" NO")])
    assert answer[:3] == [
        (b"m", b"\0\0\0\2x-spam-flag\0\0"),
        (b"m", b"\0\0\0\1x-spam-flag\0\0"),
        (b"h", b"X-Spam-Flag\0 NO\0"),
    ]


def test_without_leading_space_in_the_protocol_none_is_sent_and_one_is_put_back():
    mail = Mail(offered=OLD)
    answer = mail.send(headers=[(b"Subject", b"hello")])
    assert mail.scanned[0].content.startswith(b"Subject: hello\r\n")
    assert answer[0] == (b"h", b"X-Spam-Flag\0NO\0")


def test_a_subject_is_changed_where_it_stands():
    mail = Mail(score(7.0), treated(thresholds=Thresholds(5.0, rewrite_subject_at=6.0)))
    assert mail.send()[0] == (b"m", b"\0\0\0\1Subject\0 [SPAM] hello\0")


def test_spam_is_marked_and_held_also_when_its_subject_is_too_long_for_a_tag():
    policy = replace(treated(thresholds=Thresholds(5.0, 8.0, rewrite_subject_at=6.0)), max_scan_size=10**6)
    said = Mail(score(9.0), policy).send(headers=((b"Subject", b" " + b"\xff" * 60_000),))
    assert [letter for letter, _ in said] == [b"h", b"h", b"h", b"h", b"q", b"a"]


def test_spam_is_refused_with_its_reply():
    ((letter, data),) = Mail(score(20.0)).send()
    assert letter == b"y"
    assert data.startswith(b"550 5.7.1 Message refused as spam (score 20.0")
    assert data.endswith(b"\0")


def test_probable_spam_is_held_after_all_changes():
    answer = Mail(score(9.0)).send()
    assert answer[-2:] == [(b"q", b"mxweir: score 9.0\0"), (b"a", b"")]


def test_what_was_not_agreed_on_is_not_asked_for():
    mail = Mail(score(9.0), offered=codec.Negotiate(6, 0x10, 0))
    assert mail.send(headers=[(b"X-Spam-Flag", b"NO")]) == [(b"m", b"\0\0\0\1x-spam-flag\0\0"), (b"a", b"")]
    (event,) = mail.events(Scanned)
    assert (event.outcome, event.action) == ("tagged", "")


def test_unscanned_mail_is_deferred_where_the_policy_says_so():
    ((letter, data),) = Mail(Failed(Reason.DEADLINE), treated(unscanned="defer")).send()
    assert (letter, data[:9]) == (b"y", b"451 4.7.1")


def test_mail_of_our_users_is_let_go_before_its_content_is_sent_where_the_mail_server_waits_for_that():
    mail = Mail(auth_authen="bob", offered=WAITING)
    assert letters(mail.until_data())[-1] == b"a"
    assert [outcome for outcome, _ in mail.scans()] == ["skipped"]


def test_mail_of_our_users_is_accepted_as_it_is_and_not_kept_meanwhile_where_it_does_not():
    mail = Mail(auth_authen="bob")
    mail.until_data()
    mail.take(codec.Header(b"Subject", b" hello"), codec.Body(b"hello"))
    assert (mail.room.used, mail.scans()) == (0, [])
    assert mail.send() == [(b"a", b"")]
    assert [(outcome, mail.scanned) for outcome, _ in mail.scans()] == [("skipped", [])]


def test_one_users_name_is_not_taken_for_the_next_senders():
    mail = Mail(auth_authen="bob", offered=WAITING)
    mail.until_data()
    mail.macros = {}
    assert letters(mail.take(codec.Mail(b"<c@sender.example>", []), codec.Data()))[-1] == b"c"


def test_the_rest_of_a_large_message_is_not_asked_for():
    mail = Mail(offered=WAITING)
    mail.until_data()
    assert letters(mail.take(codec.Body(b"x" * 1000), codec.Body(b"x"))) == [b"c", b"s"]


def test_a_piece_that_comes_in_parts_is_answered_once():
    mail = Mail(offered=WAITING)
    mail.until_data()
    parts = codec.Body(b"x" * 500, ends=False), codec.Body(b"x" * 500), codec.Body(b"x", ends=False)
    assert letters(mail.take(*parts, codec.Body(b"x"))) == [b"", b"c", b"", b"s"]


def test_a_piece_at_which_something_goes_wrong_is_answered_once_too(monkeypatch):
    def boom(*_):
        raise RuntimeError("boom")

    mail = Mail(offered=WAITING)
    mail.until_data()
    monkeypatch.setattr(Session, "body", boom)
    assert letters(mail.take(codec.Body(b"x", ends=False), codec.Body(b"x"))) == [b"", b"c"]


def test_a_mail_server_that_knows_no_skip_sends_it_in_vain():
    mail = Mail(offered=OLD)
    mail.until_data()
    assert letters(mail.take(codec.Body(b"x" * 2000))) == [b"c"]


def test_an_end_of_header_costs_no_wait_either_where_it_cannot_be_left_out():
    mail = Mail(offered=codec.Negotiate(6, 0x1FF, 0x1FFFFF & ~0x40))
    assert mail.take(codec.EndOfHeader()) == [b""]


@pytest.mark.parametrize("unscanned", ["accept", "defer", "quarantine"])
def test_a_fault_while_scanning_marks_and_accepts_the_message_whatever_the_policy(unscanned):
    mail = Mail(policy=treated(unscanned=unscanned))
    mail.until_data()
    mail.dialogue.take(codec.End(b""))
    said = mail.dialogue.conclude_unscanned(RuntimeError("boom"))
    assert packets(said.packets) == [
        (b"h", b"X-Spam-Status\0 unscanned, reason=internal error\0"),
        (b"a", b""),
    ]
    assert [trouble.what for trouble in mail.events(Trouble)] == ["internal error at end of message"]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "header", "body"])
def test_a_fault_at_any_step_marks_the_message_and_accepts_it(monkeypatch, step):
    def boom(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(Session, step, boom)
    mail = Mail()
    assert mail.send() == [(b"h", b"X-Spam-Status\0 unscanned, reason=internal error\0"), (b"a", b"")]
    assert mail.scanned == []
    assert mail.room.used == 0


@pytest.mark.parametrize("step", ["end", "conclude", "fail"])
def test_even_a_session_that_cannot_conclude_does_not_cost_the_message(monkeypatch, step):
    def boom(*_):
        raise RuntimeError("boom")

    for name in ("end", "conclude", step):
        monkeypatch.setattr(Session, name, boom)
    mail = Mail()
    assert mail.send() == [(b"a", b"")]
    assert not mail.dialogue.in_message
    assert mail.room.used == 0


def test_an_answer_that_cannot_be_put_into_packets_does_not_cost_the_message():
    mail = Mail(score(7.0), treated(thresholds=Thresholds(5.0, rewrite_subject_at=6.0), subject_tag="\0"))
    assert mail.send() == [(b"a", b"")]
    assert mail.scans() == [("unscanned", "answer not heard")]


def test_a_log_that_fails_changes_nothing_for_the_mail():
    def full(event):
        raise OSError(28, "No space left on device")

    mail = Mail(score(20.0))
    mail.dialogue._observe = full
    assert mail.send()[0][0] == b"y"


def test_a_verdict_that_nobody_heard_is_not_claimed():
    mail = Mail(score(7.0))
    mail.until_data()
    mail.dialogue.take(codec.End(b""))
    mail.dialogue.unheard(mail.dialogue.conclude(score(7.0)).event)
    assert mail.scans() == [("unscanned", "answer not heard")]
    assert [trouble.what for trouble in mail.events(Trouble)] == ["answer not heard"]


def test_a_message_that_nobody_waits_for_any_more_is_told_and_keeps_no_memory():
    mail = Mail()
    mail.until_data()
    mail.take(codec.Body(b"hello"))
    mail.dialogue.take(codec.End(b""))
    assert mail.room.used > 0
    mail.dialogue.abandon()
    assert mail.scans() == [("unscanned", "answer not heard")]
    assert mail.room.used == 0


def test_a_message_that_finds_no_room_passes_at_once_for_that_reason():
    mail = Mail()
    mail.room.most = 10
    answer = mail.send()
    assert answer[0] == (b"h", b"X-Spam-Status\0 unscanned, reason=no room\0")
    assert mail.scanned == []
    assert mail.room.used == 0


def test_a_client_on_a_unix_socket_has_no_address():
    mail = Mail()
    mail.take(codec.Connect(b"localhost", b"L", 0, b"/some/socket"), codec.Mail(b"<>", []))
    wanted = mail.dialogue.take(codec.End(b""))
    assert isinstance(wanted, Wanted)
    assert wanted.message.client.address == ""


def test_an_aborted_message_is_no_longer_in_hand():
    mail = Mail()
    mail.until_data()
    mail.take(codec.Body(b"hello"))
    in_hand = [mail.dialogue.in_message]
    mail.take(codec.Abort())
    assert [*in_hand, mail.dialogue.in_message] == [True, False]
    assert mail.room.used == 0


def test_the_next_client_on_the_same_connection_is_another_one():
    mail = Mail()
    mail.until_data()
    mail.take(codec.Quit(True), codec.Mail(b"<>", []))
    wanted = mail.dialogue.take(codec.End(b""))
    assert isinstance(wanted, Wanted)
    assert wanted.message.client.address == ""
