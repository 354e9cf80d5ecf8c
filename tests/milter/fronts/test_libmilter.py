import socket
from dataclasses import replace

import pytest

Milter = pytest.importorskip("Milter")

from mxweir.config import Milter as Settings  # noqa: E402
from mxweir.endpoint import Inet, Unix  # noqa: E402
from mxweir.events import Scanned, Trouble  # noqa: E402
from mxweir.testing import Recorder, SettableClock  # noqa: E402
from mxweir_milter.fronts.libmilter import LibmilterFront, _connection  # noqa: E402
from mxweir_milter.policy import Treatment, Treatments  # noqa: E402
from mxweir_milter.room import Room  # noqa: E402
from mxweir_milter.session import Policy, Session  # noqa: E402
from mxweir_milter.testing import score  # noqa: E402
from mxweir_milter.verdict import Failed, Reason, Thresholds  # noqa: E402

TREATMENT = Treatment(thresholds=Thresholds(5.0, 8.0, 12.0))
POLICY = Policy(8.0, 1000, Treatments(TREATMENT), None, frozenset({"authenticated"}), (), True)
POSTFIX = [0x1FF, 0x1FFFFF, 0, 0]
"""What Postfix 3.7 offers: all actions and all protocol steps."""


def treated(**changes):
    """The usual policy, with another treatment for everybody."""
    return replace(POLICY, treatments=Treatments(replace(TREATMENT, **changes)))


class Context:
    """A pymilter context that keeps what it is told."""

    def __init__(self, **macros):
        self.macros = macros
        self.edits = []
        self.reply: tuple[str, ...] = ()
        self.held = ""
        self.private = None
        self.gone = False

    def getsymval(self, sym):
        return self.macros.get(sym.strip("{}"))

    def setreply(self, *reply):
        self.reply = reply

    def addheader(self, field, value):
        if self.gone:
            raise Milter.error("cannot add header")
        self.edits.append(("add", field, value))

    def chgheader(self, field, idx, value):
        self.edits.append(("remove" if value is None else "change", field, idx))

    def quarantine(self, reason):
        self.held = reason

    def setpriv(self, value):
        self.private = value

    def getpriv(self):
        return self.private


class Mail:
    """A front with a stub for a scanner, and a way through one message."""

    def __init__(self, result=None, policy=POLICY, offered=None, **macros):
        self.policy = policy
        self.result = result or score(1.0)
        self.scanned = []
        self.recorder = Recorder()
        clock = SettableClock()
        self.front = LibmilterFront(
            Settings(listen=Unix("/nowhere")),
            lambda: Session(lambda: self.policy, clock, clock, Room(10**9)),
            self.scan,
            self.recorder,
        )
        self.ctx = Context(i="4XyZ1", j="mx.example.org", **macros)
        self.options = list(offered or POSTFIX)
        assert self.front._negotiate(self.ctx, self.options) == Milter.CONTINUE

    def scan(self, message, deadline):
        self.scanned.append(message)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def until_data(self):
        front, ctx = self.front, self.ctx
        steps = [
            front._connect(ctx, "mail.sender.example", socket.AF_INET, ("203.0.113.9", 4711)),
            front._helo(ctx, "helo.sender.example"),
            front._mail(ctx, b"<a@sender.example>", b"SIZE=100"),
            front._rcpt(ctx, b"<b@example.org>", b"NOTIFY=NEVER"),
        ]
        return steps, front._data(ctx)

    def send(self, headers=(("Subject", b" hello"),), body=b"hello\r\n"):
        self.until_data()
        for name, value in headers:
            self.front._header(self.ctx, name, value)
        self.front._body(self.ctx, body)
        return self.front._end(self.ctx)

    def events(self, kind):
        return [event for event in self.recorder.events if isinstance(event, kind)]

    def scans(self):
        return [(event.outcome, event.reason) for event in self.events(Scanned)]


def test_steps_where_we_have_nothing_to_say_cost_postfix_no_wait():
    steps, data = Mail().until_data()
    assert steps == [Milter.NOREPLY] * 4
    assert data == Milter.CONTINUE


def test_an_old_mail_server_that_cannot_do_without_replies_gets_them():
    steps, _ = Mail(offered=[0x3F, 0, 0, 0]).until_data()
    assert steps == [Milter.CONTINUE] * 4


def test_only_what_is_offered_and_used_is_negotiated():
    mail = Mail()
    assert mail.options[0] == Milter.ADDHDRS | Milter.CHGHDRS | Milter.QUARANTINE
    assert mail.options[1] & Milter.P_SKIP
    assert mail.options[1] & Milter.P_HDR_LEADSPC
    assert Mail(offered=[0x3F, 0, 0, 0]).options[1] == 0


def test_a_message_is_scanned_and_accepted_with_our_fields():
    mail = Mail()
    assert mail.send() == Milter.ACCEPT
    assert mail.scanned[0].content == b"Subject: hello\r\n\r\nhello\r\n"
    assert mail.ctx.edits[0] == ("add", "X-Spam-Flag", " NO")
    assert mail.scans() == [("ham", "")]


def test_forged_fields_are_removed_before_ours_are_added():
    mail = Mail()
    mail.send(headers=[("X-Spam-Flag", b" NO"), ("X-SPAM-FLAG", b" NO")])
    assert mail.ctx.edits[:3] == [
        ("remove", "x-spam-flag", 2),
        ("remove", "x-spam-flag", 1),
        ("add", "X-Spam-Flag", " NO"),
    ]


def test_without_leading_space_in_the_protocol_none_is_sent_and_one_is_put_back():
    mail = Mail(offered=[0x3F, 0, 0, 0])
    mail.send(headers=[("Subject", b"hello")])
    assert mail.scanned[0].content.startswith(b"Subject: hello\r\n")
    assert mail.ctx.edits[0] == ("add", "X-Spam-Flag", "NO")


def test_spam_is_refused_with_its_reply():
    mail = Mail(score(20.0))
    assert mail.send() == Milter.REJECT
    assert mail.ctx.reply[:2] == ("550", "5.7.1")
    assert mail.ctx.edits == []


def test_probable_spam_is_held():
    mail = Mail(score(9.0))
    assert mail.send() == Milter.ACCEPT
    assert mail.ctx.held == "mxweir: score 9.0"


def test_unscanned_mail_is_deferred_where_the_policy_says_so():
    mail = Mail(Failed(Reason.DEADLINE), treated(unscanned="defer"))
    assert mail.send() == Milter.TEMPFAIL
    assert mail.ctx.reply[:2] == ("451", "4.7.1")


def test_mail_of_our_users_is_let_go_before_its_content_is_sent():
    mail = Mail(auth_authen="bob")
    assert mail.until_data()[1] == Milter.ACCEPT
    assert mail.scans() == [("skipped", "authenticated")]


def test_the_rest_of_a_large_message_is_not_asked_for():
    mail = Mail()
    mail.until_data()
    assert mail.front._body(mail.ctx, b"x" * 1000) == Milter.CONTINUE
    assert mail.front._body(mail.ctx, b"x") == Milter.SKIP


def test_a_mail_server_that_knows_no_skip_sends_it_in_vain():
    mail = Mail(offered=[0x3F, 0, 0, 0])
    mail.until_data()
    assert mail.front._body(mail.ctx, b"x" * 2000) == Milter.CONTINUE


@pytest.mark.parametrize("fault", [RuntimeError("boom"), MemoryError(), SystemExit(1)])
@pytest.mark.parametrize("unscanned", ["accept", "defer", "quarantine"])
def test_a_fault_while_scanning_accepts_the_message_whatever_the_policy(fault, unscanned):
    mail = Mail(fault, treated(unscanned=unscanned))
    assert mail.send() == Milter.ACCEPT
    assert mail.ctx.reply == ()
    assert [trouble.what for trouble in mail.events(Trouble)] == ["internal error at end of message"]


def test_a_fault_while_scanning_marks_the_message():
    mail = Mail(RuntimeError("boom"))
    mail.send()
    assert mail.ctx.edits == [("add", "X-Spam-Status", " unscanned, reason=internal error")]
    assert mail.scans() == [("unscanned", "internal error")]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "header", "body"])
def test_a_fault_at_any_step_marks_the_message_and_accepts_it(monkeypatch, step):
    def boom(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(Session, step, boom)
    mail = Mail()
    assert mail.send() == Milter.ACCEPT
    assert mail.ctx.edits == [("add", "X-Spam-Status", " unscanned, reason=internal error")]
    assert mail.scanned == []


@pytest.mark.parametrize("step", ["end", "conclude", "fail"])
def test_even_a_session_that_cannot_conclude_does_not_cost_the_message(monkeypatch, step):
    def boom(*_):
        raise RuntimeError("boom")

    for name in ("end", "conclude", step):
        monkeypatch.setattr(Session, name, boom)
    assert Mail().send() == Milter.ACCEPT


def test_a_session_that_cannot_be_made_does_not_cost_the_message():
    def boom():
        raise RuntimeError("boom")

    mail = Mail()
    mail.front._new_session = boom
    mail.ctx.private = None
    assert mail.send() == Milter.ACCEPT


def test_a_log_that_fails_changes_nothing_for_the_mail():
    def full(event):
        raise OSError(28, "No space left on device")

    mail = Mail(score(20.0))
    mail.front._observe = full
    assert mail.send() == Milter.REJECT


def test_a_verdict_that_nobody_heard_is_not_claimed():
    mail = Mail(score(7.0))
    mail.ctx.gone = True
    assert mail.send() == Milter.ACCEPT
    assert mail.scans() == [("unscanned", "answer not heard")]


def test_a_macro_that_cannot_be_read_is_not_there():
    class Odd(Context):
        def getsymval(self, sym):
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    mail = Mail()
    odd = Odd()
    odd.private = mail.ctx.private
    mail.ctx = odd
    assert mail.send() == Milter.ACCEPT
    assert mail.scans() == [("ham", "")]


def test_a_client_on_a_unix_socket_has_no_address():
    mail = Mail()
    mail.front._connect(mail.ctx, "localhost", socket.AF_UNIX, "/some/socket")
    mail.front._mail(mail.ctx, b"<>")
    mail.front._end(mail.ctx)
    assert mail.scanned[0].client.address == ""


def test_sessions_and_messages_in_hand_are_counted_until_they_are_done():
    mail = Mail()
    assert (mail.front.sessions(), mail.front.in_hand()) == (1, 0)
    mail.until_data()
    assert mail.front.in_hand() == 1
    in_hand_while_scanning = []

    def scan(*_):
        in_hand_while_scanning.append(mail.front.in_hand())
        return score(0.0)

    mail.front._scan = scan
    mail.front._end(mail.ctx)
    assert in_hand_while_scanning == [1]
    assert mail.front.in_hand() == 0
    mail.front._close(mail.ctx)
    assert (mail.front.sessions(), mail.ctx.private) == (0, None)


def test_an_aborted_message_is_no_longer_in_hand():
    mail = Mail()
    mail.until_data()
    mail.front._abort(mail.ctx)
    assert mail.front.in_hand() == 0


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Unix("/run/mxweir/milter"), "unix:/run/mxweir/milter"),
        (Inet("127.0.0.1", 10041), "inet:10041@127.0.0.1"),
        (Inet("::1", 10041), "inet6:10041@::1"),
    ],
)
def test_addresses_are_written_as_libmilter_wants_them(address, text):
    assert _connection(address) == text
