import re
import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxweir_milter.facts import Client, Envelope, Tls
from mxweir_milter.received import _date, prologue, protocol, received
from mxweir_milter.testing import CLIENT, ENVELOPE

NOON = 1_800_000_000.0
ANYTHING = st.text(max_size=400)

RELAYS = r"""
use Mail::SpamAssassin; use Mail::SpamAssassin::PerMsgStatus;
my $sa = Mail::SpamAssassin->new({config_text => "", local_tests_only => 1, dont_copy_prefs => 1});
$sa->init(0);
local $/;
for my $text (split /\0/, <STDIN>) {
  my $msg = $sa->parse($text);
  my $status = Mail::SpamAssassin::PerMsgStatus->new($sa, $msg);
  $status->extract_message_metadata();
  my $found = $msg->{metadata};
  my $from = $status->get_envelope_from();
  print $found->{relays_trusted_str}, $found->{relays_untrusted_str}, "\t", $from // "(none)", "\n";
}
"""


def relays(*messages):
    """What SpamAssassin itself reads from messages: relays and envelope sender."""
    probe = ["perl", "-MMail::SpamAssassin", "-e", "1"]
    if not shutil.which("perl") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("SpamAssassin's Perl modules are not installed")
    done = subprocess.run(["perl", "-e", RELAYS], input=b"\0".join(messages), capture_output=True, check=True)
    return [tuple(line.split("\t")) for line in done.stdout.decode().splitlines()]


def scanned(client, envelope):
    """A message as spamd gets it, whose own header tries to look like ours."""
    own = b"X-Envelope-From: <forged@f.example>\r\nReturn-Path: <forged@f.example>\r\nSubject: x\r\n\r\nx\r\n"
    return prologue(client, envelope, NOON) + own


@pytest.fixture(autouse=True)
def central_europe(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    _date.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    _date.cache_clear()


def test_received_has_the_form_that_postfix_gives_it():
    assert received(CLIENT, ENVELOPE, NOON) == (
        "Received: from helo.sender.example (mail.sender.example [203.0.113.9])\r\n"
        "\tby mx.example.org (Postfix) with ESMTP id 4XyZ1 (envelope-from <a@sender.example>)\r\n"
        "\tfor <b@example.org>; Fri, 15 Jan 2027 09:00:00 +0100 (CET)"
    )


def test_received_tells_the_encryption_where_postfix_does():
    encrypted = CLIENT._replace(tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "256"))
    assert (
        " (mail.sender.example [203.0.113.9])\r\n"
        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
        "\tby mx.example.org (Postfix) with ESMTPS id 4XyZ1 "
    ) in received(encrypted, ENVELOPE, NOON)


def test_received_names_the_recipient_only_when_there_is_one():
    several = ENVELOPE._replace(recipients=("b@example.org", "c@example.org"), recipient_count=2)
    assert "for <" not in received(CLIENT, several, NOON)


def test_received_gives_an_ipv6_address_its_prefix():
    assert "[IPv6:2001:db8::9]" in received(CLIENT._replace(address="2001:db8::9"), ENVELOPE, NOON)


@pytest.mark.parametrize(
    ("client", "envelope", "word"),
    [
        (CLIENT, ENVELOPE, "ESMTP"),
        (CLIENT._replace(tls=Tls("TLSv1.3", "X", "256")), ENVELOPE, "ESMTPS"),
        (CLIENT, ENVELOPE._replace(sasl_username="bob"), "ESMTPA"),
        (CLIENT._replace(tls=Tls("TLSv1.3", "X", "256")), ENVELOPE._replace(sasl_username="bob"), "ESMTPSA"),
        (CLIENT, ENVELOPE._replace(smtputf8=True), "UTF8SMTP"),
    ],
)
def test_the_protocol_word_tells_encryption_authentication_and_smtputf8(client, envelope, word):
    assert protocol(client, envelope) == word


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_whatever_the_client_says_each_header_stays_one_header(name, address, helo, sender, recipient, user):
    client = Client(name, address, helo, "mx.example.org", Tls(helo, name, user))
    envelope = Envelope(sender, (recipient,), 1, user, "Q1")
    lines = prologue(client, envelope, NOON).split(b"\r\n")
    assert lines.pop() == b""
    assert not [line for line in lines if b"\r" in line or b"\n" in line or b"\0" in line]
    starts = [line.partition(b":")[0] for line in lines if not line.startswith(b"\t")]
    assert starts == [b"Return-Path", b"X-Envelope-From", b"X-Envelope-To", b"Received"]


@given(ANYTHING, ANYTHING)
def test_no_address_can_add_a_word_to_received(sender, recipient):
    def words(envelope):
        return re.split(r"\s+", received(CLIENT, envelope, NOON).partition(";")[0])

    plain = words(ENVELOPE)
    hostile = words(ENVELOPE._replace(sender=sender, recipients=(recipient,)))
    assert len(hostile) <= len(plain)
    assert hostile[: plain.index("4XyZ1")] == plain[: plain.index("4XyZ1")]


def test_bytes_that_are_no_utf8_come_back_as_they_were():
    assert b"X-Envelope-From: <\xff@example.org>\r\n" in prologue(
        CLIENT, ENVELOPE._replace(sender="\udcff@example.org"), NOON
    )


def test_spamassassin_reads_client_helo_and_sender_from_it():
    hostile = CLIENT._replace(helo="x (y [192.0.2.1]) by z with ESMTPA id 1;")
    encrypted = CLIENT._replace(name="unknown", tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "256"))
    six = CLIENT._replace(address="2001:db8::9")
    clients = (CLIENT, encrypted, six, hostile)
    found = relays(*[scanned(client, ENVELOPE) for client in clients])
    for client, (relay, sender) in zip(clients, found, strict=True):
        assert f"ip={client.address} " in relay
        assert f"rdns={'' if client.name == 'unknown' else client.name} " in relay
        assert "by=mx.example.org " in relay
        assert " auth= " in relay
        assert sender == "a@sender.example"


def test_spamassassin_takes_nobody_for_authenticated_by_an_address_that_says_so():
    said = '"x with ESMTPA y"@e.example'
    (relay, _), (real, _) = relays(
        scanned(CLIENT, Envelope(said, (said,), 1, "", "Q1")),
        scanned(CLIENT, ENVELOPE._replace(sasl_username="bob")),
    )
    assert " auth= " in relay
    assert " auth=ESMTPA " in real
