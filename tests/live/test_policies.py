"""Each recipient's policy through Postfix: what becomes of a message, and what its sender and the log say."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb
import pytest

from mxweir.domains.match import digest
from mxweir.domains.reader import POSTGRES, RECORDS
from mxweir.domains.record import FROM_POSTGRES, Record
from mxweir.endpoint import Unix
from mxweir_ops.lab.client import STRANGER, Client, Outcome
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.sink import Delivery
from mxweir_ops.lab.stack import Plan, Stack

DOMAINS = "plain.example\nshown.example\n.strict.example\nheld.example\nlater.example\nacme.example\n"
RULES = """
[[milter.policy]]
name = "shown"
recipient_domain = "shown.example"
rewrite_subject_at = 6.0
reject_at = "never"

[[milter.policy]]
name = "strict"
recipient_domain = ["strict.example", ".strict.example"]
reject_at = 6.0
reject_text = "No spam at strict.example, please"

[[milter.policy]]
name = "held"
recipient_domain = "held.example"
quarantine_at = 6.0
unscanned = "quarantine"

[[milter.policy]]
name = "later"
recipient_domain = "later.example"
unscanned = "defer"

[[milter.policy]]
name = "acme"
tenant = "acme"
tag_at = 9.0

[[access]]
allow = "recipient"
value = "abuse@strict.example"

[[access]]
allow = "client_network"
value = "198.51.100.0/24"

[log]
format = "json"
"""
SUBJECT = b"Subject: Minutes\r\n"
FRONTS = ["asyncio", "libmilter"]


@pytest.fixture(scope="module")
def engine() -> Iterator[HostileEngine]:
    """A scanner that finds what it is told to find."""
    with temporary_directory() as directory:
        at = Unix(str(directory / "engine"))
        with HostileEngine("spamd", at, Manner.PROMPT) as engine:
            yield engine


@pytest.fixture(scope="module", params=FRONTS)
def mx(request: pytest.FixtureRequest, engine: HostileEngine) -> Iterator[Stack]:
    with temporary_directory() as directory:
        milter = (
            f'front = "{request.param}"\ntag_at = 5.0\nreject_at = 12.0\nbreaker = {{ min_calls = 1000 }}'
        )
        plan = Plan(engine=engine.endpoint, milter=milter, rest=RULES, domains=DOMAINS)
        give_tenant(directory / "state", "acme.example", "acme")
        with Stack(Path(directory), plan) as stack:
            yield stack


def give_tenant(state: Path, domain: str, tenant: str) -> None:
    """Write a table as the follower of PostgreSQL leaves it; how it comes there is tested elsewhere."""
    state.mkdir()
    record = Record(domain, "", False, FROM_POSTGRES, True, tenant)
    with (
        lmdb.open(str(state / POSTGRES), subdir=False, map_size=2**24, max_dbs=2) as table,
        table.begin(write=True, db=table.open_db(RECORDS)) as write,
    ):
        write.put(digest(domain), record.encode())
    for path in state.iterdir():
        path.chmod(0o666)


class Sent:
    """A message on its way, and what became of it."""

    def __init__(self, mx: Stack, sender: str, recipients: Sequence[str], client: str, subject: bytes):
        self.mx, self.sender, self.id = mx, sender, new_message_id()
        with Client(mx.port, client) as session:
            message = letter(message_id=self.id).replace(b"Subject: Minutes of Tuesday\r\n", subject)
            self.outcome: Outcome = session.send(sender, recipients, message)

    @property
    def log(self) -> dict[str, object]:
        return self.mx.milter.wait_for(event="scan", sender=self.sender)

    def arrived(self, recipients: int = 1) -> Delivery:
        assert self.outcome.accepted, self.outcome
        return self.mx.maildir.wait_for(self.id, recipients)[0]


@pytest.fixture
def send(mx: Stack, engine: HostileEngine, sender: str):
    def send(score: float, *recipients: str, client: str = STRANGER, subject: bytes = SUBJECT) -> Sent:
        engine.settings.score = score
        return Sent(mx, sender, recipients, client, subject)

    return send


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: Minutes\r\n", b"Subject: [SPAM] Minutes\n"),
        (b"SUBJECT:one\r\nSubject: two\r\n", b"Subject: [SPAM] one\nSubject: two\n"),
        (
            b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=,\r\n\tx\r\n",
            b"Subject: [SPAM] =?utf-8?Q?Gr=C3=BC=C3=9Fe?=,\n\tx\n",
        ),
        ("Subject: Grüße\r\n".encode(), "Subject: [SPAM] Grüße\n".encode()),
        (b"Subject: Gr\xfc\xdfe\r\n", b"Subject: [SPAM] =?unknown-8bit?B?R3L832U=?=\n"),
        (b"Subject: [SPAM] Minutes\r\n", b"Subject: [SPAM] Minutes\n"),
        (b"Subject:\r\n", b"Subject: [SPAM]\n"),
    ],
)
def test_a_subject_gets_its_tag_where_it_stands_and_stays_what_it_was(
    send, before: bytes, after: bytes
) -> None:
    delivery = send(7.0, "a@shown.example", subject=before).arrived()
    assert b"\nTo: Anna <anna@example.org>\n" + after + b"Date: " in delivery.raw
    assert delivery.header("X-Spam-Flag") == "YES"


def test_a_message_without_a_subject_gets_one_behind_our_fields(send) -> None:
    delivery = send(7.0, "a@shown.example", subject=b"").arrived()
    assert b"\nX-Spam-Scanner: mxweir spamd\nSubject: [SPAM]\n\n" in delivery.raw


def test_no_other_recipients_subject_is_touched(send) -> None:
    assert send(7.0, "a@plain.example").arrived().header("Subject") == "Minutes"


def test_a_domain_refuses_with_its_own_threshold_and_text(send) -> None:
    sent = send(7.0, "a@sub.strict.example")
    assert sent.outcome.data.code == 550
    assert sent.outcome.data.text.startswith(
        "5.7.1 No spam at strict.example, please (score 7.0, limit 6.0, id "
    )
    assert (sent.log["policy"], sent.log["outcome"]) == ("strict", "rejected")


def test_of_two_recipients_the_milder_policy_wins_and_the_log_says_so(send) -> None:
    sent = send(15.0, "a@strict.example", "a@shown.example", "a@plain.example")
    assert sent.arrived(3).header("Subject") == "[SPAM] Minutes"
    log = sent.log
    assert (log["policy"], log["outcome"], log["recipients"]) == ("shown", "tagged", 3)
    assert log["overruled"] == "default:rejected strict:rejected"


def test_a_domain_has_its_spam_held(send, mx: Stack) -> None:
    before = mx.mx.queued()["hold"]
    sent = send(7.0, "a@held.example")
    assert sent.outcome.accepted
    assert wait_until(lambda: mx.mx.queued()["hold"] == before + 1, 60)
    assert (sent.log["policy"], sent.log["outcome"]) == ("held", "quarantined")


def test_a_domain_gets_the_policy_of_its_tenant(send) -> None:
    sent = send(7.0, "a@acme.example")
    assert sent.arrived().header("X-Spam-Status").startswith("No, score=7.0 required=9.0 ")
    assert sent.log["policy"] == "acme"


def test_an_allowed_client_is_not_scanned(send) -> None:
    sent = send(15.0, "a@strict.example", client="198.51.100.7")
    assert sent.arrived().header("X-Spam-Flag") is None
    assert (sent.log["outcome"], sent.log["reason"]) == ("skipped", "allow client_network")


def test_an_allowed_recipient_is_not_scanned_for_and_with_others_marked_at_most(send) -> None:
    alone = send(15.0, "abuse@strict.example")
    assert alone.arrived().header("X-Spam-Flag") is None
    assert alone.log["reason"] == "allow recipient"
    both = send(15.0, "abuse@strict.example", "a@strict.example")
    assert both.arrived(2).header("X-Spam-Flag") == "YES"
    assert (both.log["policy"], both.log["overruled"]) == ("allow recipient", "strict:rejected")


@pytest.mark.parametrize(
    ("recipients", "code", "held"),
    [
        (["a@plain.example"], 250, 0),
        (["a@later.example"], 451, 0),
        (["a@held.example"], 250, 1),
        (["a@later.example", "a@held.example"], 451, 0),
        (["a@later.example", "a@plain.example"], 250, 0),
    ],
)
def test_what_becomes_of_unscanned_mail_is_a_setting_of_each_domain(
    send, mx: Stack, engine: HostileEngine, recipients: Sequence[str], code: int, held: int
) -> None:
    before = mx.mx.queued()["hold"]
    engine.manner = Manner.NO_SCORE
    try:
        sent = send(0.0, *recipients)
    finally:
        engine.manner = Manner.PROMPT
    assert sent.outcome.data.code == code
    assert wait_until(lambda: mx.mx.queued()["hold"] == before + held, 60)
    assert sent.log["outcome"] == "unscanned"
