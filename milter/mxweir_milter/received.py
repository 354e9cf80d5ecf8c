"""The headers that tell a scanner what the envelope was.

A milter does not see the Received header that Postfix adds itself, yet the
network and trust rules of SpamAssassin read the client's address and name, its
HELO and its authentication there and nowhere else. So the header is made again
from the same facts, in the form of Postfix's smtpd.c, which SpamAssassin knows
(Mail::SpamAssassin::Message::Metadata::Received, "(Postfix) with").

That parser looks for words such as ` with ESMTPA ` anywhere in the header: an
address like `"x with ESMTPA y"@example.org` could make a stranger look like one
of our own users. Only what is one word of plain ASCII is written into
the header; addresses that are not are left out of it. X-Envelope-From still has
them.
"""

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from mxweir_milter.facts import Client, Envelope, bytes_of

_NOT_IN_A_NAME = re.compile(r"[^!-~]|[<>()\\\";@]")
_PLAIN_ADDRESS = re.compile(r"[^()<>;\"\\,\x00-\x20\x7f-\U0010ffff]{1,320}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME = 255
_RECIPIENTS_SHOWN = 100


def prologue(client: Client, envelope: Envelope, now: float) -> bytes:
    """The headers to put before a message for SpamAssassin, each with its CRLF.

    `now` is in seconds since the epoch. The sender is told three ways, because
    rules ask in each: Return-Path (DSN_NO_MIMEVERSION looks for the null sender
    there), X-Envelope-From (trusted only above the first Received header, and
    not when the message brings one of its own), and in Received, which nothing
    below can overrule (Mail::SpamAssassin::PerMsgStatus, get_envelope_from).
    """
    sender = _CONTROL.sub("?", envelope.sender)
    shown = [f"Return-Path: <{sender}>", f"X-Envelope-From: <{sender}>"]
    shown += [f"X-Envelope-To: <{_CONTROL.sub('?', r)}>" for r in envelope.recipients[:_RECIPIENTS_SHOWN]]
    shown.append(received(client, envelope, now))
    return bytes_of("\r\n".join(shown) + "\r\n")


def received(client: Client, envelope: Envelope, now: float) -> str:
    """Postfix's Received header for this message, folded with CRLF, without the last line end."""
    name = _name(client.name) or "unknown"
    address = _name(client.address) or "unknown"
    address = f"IPv6:{address}" if ":" in address else address
    lines = [f"Received: from {_name(client.helo) or name} ({name} [{address}])"]
    if client.tls is not None:
        bits = _name(client.tls.bits)
        with_cipher = f"{_name(client.tls.version)} with cipher {_name(client.tls.cipher)}"
        lines.append(f"(using {with_cipher} ({bits}/{bits} bits))")
    by = f"by {_name(client.host) or 'localhost'} (Postfix) with {protocol(client, envelope)}"
    if envelope.queue_id:
        by += f" id {_name(envelope.queue_id)}"
    if _PLAIN_ADDRESS.fullmatch(envelope.sender):
        by += f" (envelope-from <{envelope.sender}>)"
    if envelope.recipient_count == 1 and _PLAIN_ADDRESS.fullmatch("".join(envelope.recipients)):
        lines += [by, f"for <{envelope.recipients[0]}>; {_date(int(now))}"]
    else:
        lines += [f"{by};", _date(int(now))]
    return "\r\n\t".join(lines)


def protocol(client: Client, envelope: Envelope) -> str:
    """The `with` word of RFC 3848 and RFC 6531, such as ESMTPSA.

    The milter protocol does not tell HELO from EHLO. Hardly any client says
    HELO, and no rule of SpamAssassin asks for it: ESMTP it is.
    """
    word = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
    return word + ("S" if client.tls else "") + ("A" if envelope.sasl_username else "")


def _name(text: str) -> str:
    """One word, neutered as Postfix does it (smtpd.c, NEUTER_CHARACTERS)."""
    return _NOT_IN_A_NAME.sub("?", text)[:_LONGEST_NAME]


@lru_cache(2)
def _date(now: int) -> str:
    """Made once a second: it takes three times as long as the rest of the header."""
    local = datetime.fromtimestamp(now, UTC).astimezone()
    return f"{format_datetime(local)} ({local.tzname()})"
