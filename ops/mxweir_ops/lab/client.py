"""An SMTP client that sends exactly what it is told and can play any client address.

Postfix's XCLIENT command (XCLIENT_README) lets a trusted loopback client say
"treat me as 203.0.113.9", so one machine can stand for many strangers.
"""

import smtplib
import ssl
from collections.abc import Sequence
from typing import NamedTuple

STRANGER = "203.0.113.9"
"""A client address of documentation space (RFC 5737), in nobody's mynetworks."""


class Reply(NamedTuple):
    """One SMTP reply: its code, and its text without the code."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Outcome(NamedTuple):
    """What Postfix answered to each step of one message; None for a step that was not reached."""

    sender: Reply
    recipients: tuple[Reply, ...]
    data: Reply | None

    @property
    def accepted(self) -> bool:
        """Whether the message is now Postfix's to deliver, to at least one recipient."""
        return self.data is not None and self.data.code == 250

    @property
    def last(self) -> Reply:
        """The reply that settled it."""
        return self.data or (self.recipients[-1] if self.recipients else self.sender)


class Client:
    """One SMTP session with the private Postfix.

    `address` None stays the loopback client that it is; any other one has the
    reverse name `name`, "[UNAVAILABLE]" for none; "" is the name of its HELO.
    `login` is a SASL user name. Raises OSError when nobody answers, and
    smtplib.SMTPException when the session breaks.
    """

    def __init__(
        self,
        port: int,
        address: str | None = STRANGER,
        helo: str = "mail.sender.example",
        login: str = "",
        seconds: float = 120.0,
        name: str = "",
    ):
        self._smtp = smtplib.SMTP("127.0.0.1", port, local_hostname=helo, timeout=seconds)
        # Addresses go out as UTF-8 bytes; whether Postfix takes them depends on SMTPUTF8 alone.
        self._smtp.command_encoding = "utf-8"
        if address is not None:
            facts = f"ADDR={address if ':' not in address else 'IPV6:' + address} NAME={name or helo}"
            reply = self.command("XCLIENT", facts + (f" LOGIN={login}" if login else ""))
            if reply.code != 220:
                raise smtplib.SMTPResponseException(reply.code, reply.text)
        self.hello = Reply(*_decoded(self._smtp.ehlo()))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # in the midst of a message, a QUIT would be a line of it, and wait for its reply in vain
            self._smtp.close()

    def close(self) -> None:
        """Say QUIT where that is still possible, and hang up."""
        try:
            self._smtp.quit()
        except (smtplib.SMTPException, OSError):
            self._smtp.close()

    def starttls(self) -> None:
        """Encrypt the session, whatever the certificate, and greet again."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._smtp.starttls(context=context)
        self.hello = Reply(*_decoded(self._smtp.ehlo()))

    def command(self, verb: str, arguments: str = "") -> Reply:
        """Send one command and return its reply."""
        return Reply(*_decoded(self._smtp.docmd(verb, arguments)))

    def mail(self, sender: str, options: str = "") -> Reply:
        """MAIL FROM; an empty sender is the null sender."""
        return self.command("MAIL", f"FROM:<{sender}> {options}".rstrip())

    def rcpt(self, recipient: str) -> Reply:
        """RCPT TO."""
        return self.command("RCPT", f"TO:<{recipient}>")

    def data(self, message: bytes) -> Reply:
        """DATA with dot-stuffing, CRLF line ends and a final newline."""
        return Reply(*_decoded(self._smtp.data(message)))

    def bdat(self, *chunks: bytes) -> Reply:
        """The message in BDAT chunks (RFC 3030), byte for byte; the reply to the last one."""
        reply = Reply(0, "no chunk was sent")
        for number, chunk in enumerate(chunks, start=1):
            last = " LAST" if number == len(chunks) else ""
            self._smtp.send(b"BDAT %d%s\r\n" % (len(chunk), last.encode()) + chunk)
            reply = Reply(*_decoded(self._smtp.getreply()))
        return reply

    def send(self, sender: str, recipients: Sequence[str], message: bytes, options: str = "") -> Outcome:
        """One message: MAIL, every RCPT, and DATA when a recipient was accepted; RSET otherwise."""
        first = self.mail(sender, options)
        answers = tuple(self.rcpt(recipient) for recipient in recipients) if first.code == 250 else ()
        if any(answer.code == 250 for answer in answers):
            return Outcome(first, answers, self.data(message))
        self.command("RSET")
        return Outcome(first, answers, None)


def send(
    port: int,
    sender: str,
    recipients: Sequence[str],
    message: bytes,
    address: str | None = STRANGER,
    options: str = "",
) -> Outcome:
    """One message in a session of its own."""
    with Client(port, address) as client:
        return client.send(sender, recipients, message, options)


def _decoded(reply: tuple[int, bytes]) -> tuple[int, str]:
    return reply[0], reply[1].decode(errors="backslashreplace")
