"""Odd messages through Postfix with our milter arrive as they do through Postfix alone, but for our headers.

Postfix itself changes some: it takes out NULs, cuts long lines, ends the header
where no field follows. So what it delivers without any milter is the reference.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mxweir.endpoint import Unix
from mxweir_ops.lab.client import Client
from mxweir_ops.lab.hostile import HostileEngine, Manner
from mxweir_ops.lab.odd import examples, odd
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postfix import Postfix
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.sink import Maildir
from mxweir_ops.lab.stack import Plan, Stack

MESSAGES = odd() | dict(examples())
NAMES = list(MESSAGES)

UTF8 = ("UTF-8 in the subject", "UTF-8 and folds in From", "no-break spaces", "right to left")
"""Those that are sent with SMTPUTF8 (RFC 6531), from an address that needs it."""

OURS = [
    b"X-Spam-Flag: NO",
    b"X-Spam-Score: 0.1",
    b"X-Spam-Status: No, score=0.1 required=5.0 tests=BAYES_00,DKIM_VALID",
    b"X-Spam-Scanner: mxweir spamd",
]
PLAIN = {
    "relay_domains": "example.org",
    # Else it would add a Message-ID, different each time, to those that have none.
    "local_header_rewrite_clients": "",
}
ALONE = PLAIN | {
    # What it becomes by itself as soon as there is any milter (cleanup_message.c, KLUDGE_HEADER_LIMIT).
    "header_size_limit": "60000",
}


def send_all(port: int, maildir: Maildir) -> Mapping[str, bytes]:
    """Every message by BDAT to a recipient of its own; what arrived, by the message's name."""
    with Client(port) as client:
        for number, name in enumerate(NAMES):
            sender, options = (
                ("jörg@müller.example", " SMTPUTF8") if name in UTF8 else ("bert@sender.example", "")
            )
            assert client.mail(sender, f"BODY=8BITMIME{options}").code == 250
            assert client.rcpt(f"m{number}@example.org").code == 250
            reply = client.bdat(MESSAGES[name])
            assert reply.code == 250, f"{name}: {reply}"
    assert wait_until(lambda: len(list((maildir.path / "new").glob("*"))) >= len(NAMES), 240)
    found = {}
    for delivery in maildir.deliveries():
        to = re.search(rb"^Delivered-To: m(\d+)@example\.org\n", delivery.raw, re.MULTILINE)
        assert to is not None
        found[NAMES[int(to[1])]] = content(delivery.raw)
    return found


def content(raw: bytes) -> bytes:
    """What arrived, without the lines that Postfix and its delivery agent put on top."""
    top = re.match(
        rb"Return-Path: .*\n(?:X-Original-To: .*\n)?Delivered-To: .*\nReceived: from .*\n(?:\t.*\n)+", raw
    )
    assert top is not None, raw[:500]
    return raw[top.end() :]


@pytest.fixture(scope="module")
def alone() -> Iterator[Mapping[str, bytes]]:
    """What Postfix without a milter makes of them."""
    with temporary_directory() as directory, Postfix(directory, ALONE) as mx:
        yield send_all(mx.port, mx.maildir)


@pytest.fixture(scope="module", params=["asyncio", "libmilter"])
def scanned(request: pytest.FixtureRequest) -> Iterator[Mapping[str, bytes]]:
    """What Postfix with our milter makes of them, by each front."""
    with temporary_directory() as directory:
        engine = HostileEngine("spamd", Unix(str(directory / "engine")), Manner.PROMPT)
        milter = f'front = "{request.param}"\nmax_scan_size = "1MiB"'
        plan = Plan(engine=engine.endpoint, milter=milter, settings=PLAIN, rest='[log]\nformat = "json"\n')
        with engine, Stack(Path(directory), plan) as stack:
            found = send_all(stack.port, stack.maildir)
            assert wait_until(
                lambda: len(stack.milter.records(event="scan", outcome="ham")) >= len(NAMES), 60
            )
            assert len(stack.milter.records(sender="jörg@müller.example")) == len(UTF8)
            assert not stack.mx.complaints()
            assert engine.lone_line_feeds == 0, "Postfix does not end each line of a body in CRLF any more"
            yield found


def without_forged(message: bytes) -> bytes:
    """A message without the X-Spam-* fields that it came with; in its header only."""
    head, line, body = message.partition(b"\n\n")
    return re.sub(rb"(?im)^X-Spam-[!-9;-~]*:.*\n(?:[ \t].*\n)*", b"", head + b"\n")[:-1] + line + body


def test_there_are_more_than_a_hundred_messages_besides_those_of_packages() -> None:
    assert len(odd()) > 100
    assert len(set(odd().values())) == len(odd())


def test_they_arrive_as_without_us_but_for_our_headers(
    alone: Mapping[str, bytes], scanned: Mapping[str, bytes]
) -> None:
    added = b"".join(line + b"\n" for line in OURS)
    assert [name for name in NAMES if scanned[name].count(added) != 1] == []
    assert [
        name for name in NAMES if scanned[name].replace(added, b"", 1) != without_forged(alone[name])
    ] == []
