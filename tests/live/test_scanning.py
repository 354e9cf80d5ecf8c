"""Messages through Postfix, the milter and SpamAssassin with Debian's rules."""

import pytest

from mxweir_ops.lab import letters
from mxweir_ops.lab.client import Client, send
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.sink import Delivery
from mxweir_ops.lab.stack import Stack

ANNA = "anna@example.org"


def arrived(stack: Stack, sender: str, message: bytes, message_id: str) -> Delivery:
    outcome = send(stack.port, sender, [ANNA], message)
    assert outcome.accepted, outcome
    (delivery,) = stack.maildir.wait_for(message_id)
    return delivery


def spam_headers(delivery: Delivery) -> list[str]:
    return [name for name in delivery.message if name.lower().startswith("x-spam")]


def test_gtube_is_refused_at_the_end_of_the_message_with_its_score(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    outcome = send(scanning.port, sender, [ANNA], letter(letters.GTUBE, message_id))
    assert outcome.data is not None
    assert outcome.data.code == 550
    assert outcome.data.text.startswith("5.7.1 Message refused as spam (score 1")
    assert scanning.milter.wait_for(event="scan", sender=sender)["outcome"] == "rejected"
    assert not scanning.maildir.find(message_id)


def test_honest_mail_is_delivered_with_our_headers(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    delivery = arrived(scanning, sender, letter(message_id=message_id), message_id)
    assert delivery.headers("X-Spam-Flag") == ["NO"]
    assert float(delivery.header("X-Spam-Score") or "nan") < 5
    assert (delivery.header("X-Spam-Status") or "").startswith("No, score=")
    assert delivery.headers("X-Spam-Scanner") == ["mxweir spamd"]


def test_mail_over_the_first_threshold_is_delivered_and_marked(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    delivery = arrived(scanning, sender, letter(letters.ADVANCE_FEE, message_id), message_id)
    assert delivery.headers("X-Spam-Flag") == ["YES"]
    assert (delivery.header("X-Spam-Status") or "").startswith("Yes, score=")
    assert "ADVANCE_FEE" in (delivery.header("X-Spam-Status") or "")


def test_mail_over_the_second_threshold_waits_in_the_hold_queue(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    before = scanning.mx.queued()["hold"]
    assert send(scanning.port, sender, [ANNA], letter("mxweir-lab-quarantine", message_id)).accepted
    assert wait_until(lambda: scanning.mx.queued()["hold"] == before + 1, 60)
    assert scanning.milter.wait_for(event="scan", sender=sender)["outcome"] == "quarantined"
    assert not scanning.maildir.find(message_id)


def test_forged_headers_are_gone_however_many_and_however_written(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    forged = {
        "X-Spam-Flag": "NO",
        "x-spam-status": "No, score=-123",
        "X-SPAM-LEVEL": "",
        "X-Spam-Checker-Version": "SpamAssassin 9",
        "X-Spam-Score": "-123",
        "X-spam-score": "-200",
    }
    delivery = arrived(scanning, sender, letter(message_id=message_id, headers=forged), message_id)
    assert spam_headers(delivery) == ["X-Spam-Flag", "X-Spam-Score", "X-Spam-Status", "X-Spam-Scanner"]
    assert "-123" not in delivery.raw.decode()
    assert delivery.header("Subject") == "Minutes of Tuesday"


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_message_without_a_final_newline_is_scanned(scanning: Stack, sender: str, chunks: int) -> None:
    message_id = new_message_id()
    whole = letter(letters.HONEST + letters.GTUBE, message_id).rstrip()
    cut = len(whole) // 2
    with Client(scanning.port) as client:
        client.mail(sender)
        client.rcpt(ANNA)
        reply = client.bdat(whole) if chunks == 1 else client.bdat(whole[:cut], whole[cut:])
    assert reply.code == 550
    assert scanning.milter.wait_for(event="scan", sender=sender)["outcome"] == "rejected"


def test_an_honest_message_without_a_final_newline_arrives_whole(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    with Client(scanning.port) as client:
        client.mail(sender)
        client.rcpt(ANNA)
        assert client.bdat(letter("first line\nlast line", message_id).rstrip()).code == 250
    (delivery,) = scanning.maildir.wait_for(message_id)
    assert delivery.raw.rstrip().endswith(b"first line\nlast line")
    assert delivery.header("X-Spam-Flag") == "NO"


def test_a_message_above_the_size_limit_passes_unscanned_and_says_so(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    large = letter(letters.GTUBE + "all work and no play\n" * 5000, message_id)
    delivery = arrived(scanning, sender, large, message_id)
    assert delivery.headers("X-Spam-Status") == ["unscanned, reason=too large"]
    assert delivery.headers("X-Spam-Flag") == []
    assert scanning.milter.wait_for(event="scan", sender=sender)["reason"] == "too large"


def test_an_empty_body_is_scanned(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    delivery = arrived(scanning, sender, letter("", message_id), message_id)
    assert delivery.header("X-Spam-Score")


def test_headers_of_eight_bits_and_nul_do_not_cost_the_message(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    odd = letter(message_id=message_id).replace(b"Tuesday", b"T\xfcesday \xff\xfe", 1)
    assert arrived(scanning, sender, odd, message_id).header("X-Spam-Score")


def test_an_authenticated_client_is_not_scanned(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    with Client(scanning.port, login="anna") as client:
        assert client.send(sender, [ANNA], letter(letters.GTUBE, message_id)).accepted
    (delivery,) = scanning.maildir.wait_for(message_id)
    assert spam_headers(delivery) == []
    assert scanning.milter.wait_for(event="scan", sender=sender)["outcome"] == "skipped"


def test_a_client_of_mynetworks_is_not_scanned(scanning: Stack, sender: str) -> None:
    message_id = new_message_id()
    assert send(scanning.port, sender, [ANNA], letter(letters.GTUBE, message_id), address=None).accepted
    assert scanning.maildir.wait_for(message_id)
    assert scanning.milter.wait_for(event="scan", sender=sender)["outcome"] == "skipped"


def test_each_message_of_a_session_gets_its_own_verdict(scanning: Stack, sender: str) -> None:
    bodies = [letters.HONEST, letters.GTUBE, letters.HONEST]
    with Client(scanning.port) as client:
        codes = [client.send(sender, [ANNA], letter(body)).last.code for body in bodies]
    assert codes == [250, 550, 250]


def test_after_a_message_that_is_held_the_sessions_next_ones_get_their_own_verdicts(
    scanning: Stack, sender: str
) -> None:
    bodies = ["mxweir-lab-quarantine", letters.GTUBE, letters.HONEST]
    ids = [new_message_id() for _ in bodies]
    with Client(scanning.port) as client:
        codes = [
            client.send(sender, [ANNA], letter(body, message_id)).last.code
            for body, message_id in zip(bodies, ids, strict=True)
        ]
    assert codes == [250, 550, 250]
    assert scanning.maildir.wait_for(ids[2])[0].header("X-Spam-Flag") == "NO"
    assert not scanning.maildir.find(ids[0])


def test_the_scanner_sees_the_client_in_a_received_header(scanning: Stack, sender: str) -> None:
    # SpamAssassin knows documentation addresses as impossible ones, but only from a Received header.
    message_id = new_message_id()
    delivery = arrived(scanning, sender, letter(message_id=message_id), message_id)
    assert "RCVD_ILLEGAL_IP" in (delivery.header("X-Spam-Status") or "")
