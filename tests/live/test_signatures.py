"""DKIM signatures of senders still verify after a message has passed Postfix, the milter and SpamAssassin."""

import base64
import subprocess
from collections.abc import Sequence

import dkim
import pytest

from mxweir_ops.lab.client import Client
from mxweir_ops.lab.letters import letter, new_message_id
from mxweir_ops.lab.odd import odd
from mxweir_ops.lab.stack import Stack

FIELDS = (b"from", b"to", b"subject", b"date", b"message-id", b"subject")
"""What is signed; a field that is named once more than it stands there may not be added either."""

MESSAGES = {
    "an honest letter": letter(message_id="<odd@sender.example>"),
    **{
        name: odd()[name]
        for name in (
            *("folded by a tab", "folded with trailing white space", "Latin-1 in the subject"),
            *("no space after the colon", "no final line end", "many empty lines at the end"),
        )
    },
}

Key = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """A private key, and the record that its owner has in DNS."""
    path = tmp_path_factory.mktemp("dkim") / "key"
    make = ["openssl", "genrsa", "-traditional", "-out", str(path), "2048"]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    show = ["openssl", "rsa", "-in", str(path), "-pubout", "-outform", "DER"]
    public = subprocess.run(show, check=True, capture_output=True, timeout=60).stdout
    return path.read_bytes(), b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def signed(message: bytes, key: Key, canonicalize: Sequence[bytes]) -> bytes:
    signature: bytes = dkim.sign(
        message, b"s1", b"sender.example", key[0], canonicalize=canonicalize, include_headers=FIELDS
    )
    return signature + message


def verifies(message: bytes, key: Key) -> bool:
    return bool(dkim.verify(message, dnsfunc=lambda name, timeout=5: key[1]))


def passed(stack: Stack, sender: str, message: bytes, message_id: str) -> bytes:
    """What arrives, with line ends as on the wire."""
    with Client(stack.port) as client:
        assert client.mail(sender, "BODY=8BITMIME").code == 250
        assert client.rcpt("anna@plain.example").code == 250
        assert client.bdat(message).code == 250
    (delivery,) = stack.maildir.wait_for(message_id)
    return delivery.raw.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("how", [b"simple", b"relaxed"], ids=bytes.decode)
@pytest.mark.parametrize("name", MESSAGES)
def test_a_signature_verifies_after_the_message_has_passed(
    stack: Stack, sender: str, key: Key, how: bytes, name: str
) -> None:
    message_id = new_message_id()
    letter = MESSAGES[name].replace(b"<odd@sender.example>", message_id.encode())
    message = signed(letter, key, (how, how))
    assert verifies(message, key)
    arrived = passed(stack, sender, message, message_id)
    assert b"\r\nX-Spam-Status: " in arrived
    assert verifies(arrived, key)


def test_what_verifies_here_would_notice_a_changed_subject_or_body(key: Key) -> None:
    message = signed(MESSAGES["an honest letter"], key, (b"relaxed", b"relaxed"))
    assert not verifies(message.replace(b"Subject: ", b"Subject: [SPAM] "), key)
    assert not verifies(message.replace(b"Bert\r\n", b"Bob\r\n"), key)
    assert not verifies(message.replace(b"\r\n\r\n", b"\r\nSubject: another\r\n\r\n", 1), key)
