"""Messages as they also come: legal, barely legal and not at all; each for one thing that goes wrong.

They are the bytes after DATA, without the dots that SMTP doubles: to arrive as
they are, some must be sent by BDAT (one has no line end at its end). `examples`
finds what SpamAssassin's Debian packages and CPython's own tests have to offer.
"""

import gzip
import random
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

_DATE = format_datetime(datetime.now(UTC))
"""Of now: scanners judge a letter by its age, and a fixed date may pass a bound in the midst of a test."""
_BODY = b"Hello,\r\n\r\nit is all as it was.\r\n\r\nBert\r\n"
_EXAMPLES = (
    "/usr/share/doc/spamassassin/examples/sample-*.txt*",
    "/usr/share/doc/spamc/sample-*.txt*",
    f"{sys.base_prefix}/lib/python3*/test/test_email/data/msg_*.txt",
)


def letter(*headers: bytes, body: bytes = _BODY, plain: bool = True) -> bytes:
    """A message with these header lines; with `plain`, behind those that every letter has."""
    usual = [
        b"From: Bert <bert@sender.example>",
        b"To: Anna <anna@example.org>",
        b"Date: " + _DATE.encode(),
        b"Message-ID: <odd@sender.example>",
    ]
    return b"\r\n".join([*(usual if plain else []), *headers, b"", body])


def odd() -> dict[str, bytes]:
    """All messages that are written here, by what is odd about them."""
    parts = (
        _folding(),
        _bytes_in_headers(),
        _lengths(),
        _repeated(),
        _shapes(),
        _line_ends(),
        _bodies(),
        _mime(),
    )
    return {name: message for part in parts for name, message in part.items()}


def examples() -> Iterator[tuple[str, bytes]]:
    """Those that packages on this machine ship, by the name of their file; line ends made CRLF."""
    seen = set()
    for pattern in _EXAMPLES:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            if raw not in seen:
                seen.add(raw)
                yield path.name, raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _folding() -> Mapping[str, bytes]:
    return {
        "folded by a space": letter(b"Subject: one\r\n two\r\n three"),
        "folded by a tab": letter(b"Subject: one\r\n\ttwo\r\n\tthree"),
        "folded by much white space": letter(b"Subject: one\r\n \t \t   two"),
        "folded right after the colon": letter(b"Subject:\r\n one"),
        "folded after a space": letter(b"Subject: \r\n one"),
        "folded with trailing white space": letter(b"Subject: one  \t \r\n two\t \r\n three  "),
        "folded to an empty line": letter(b"Subject: one\r\n \r\n two"),
        "folded, last line empty": letter(b"Subject: one\r\n \t"),
        "folded within a word": letter(b"References: <a@b.exa\r\n mple> <c@d>"),
        "folded two hundred times": letter(
            b"References: " + b"\r\n ".join(b"<%d@x.example>" % n for n in range(200))
        ),
        "folded everywhere": letter(b"X-Fold:" + b"\r\n x" * 30, b"Subject:\r\n\ty\r\n\tz"),
        "encoded words on many lines": letter(
            b"Subject: " + b"\r\n ".join([b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?="] * 9)
        ),
        "an encoded word that is not one": letter(b"Subject: =?utf-8?Q?broken =?= ?= =?"),
        "an encoded word of an unknown charset": letter(b"Subject: =?x-klingon?B?////?="),
        "a first line that is a fold": b" folded onto nothing\r\n" + letter(b"Subject: x"),
    }


def _bytes_in_headers() -> Mapping[str, bytes]:
    everything = bytes(n for n in range(1, 256) if n not in b"\r\n")
    return {
        "Latin-1 in the subject": letter(b"Subject: Gr\xfc\xdfe aus K\xf6ln"),
        "UTF-8 in the subject": letter("Subject: Grüße, 日本語, 🐟".encode()),
        "UTF-8 and folds in From": letter("From: Jörg\r\n Müller <j@sender.example>".encode(), plain=False),
        "UTF-8 that is cut": letter(b"Subject: \xe6\x97\xa5\xe6\x9c"),
        "UTF-8 that is overlong": letter(b"Subject: \xc0\xaf\xed\xa0\x80"),
        "UTF-16 in a header": letter(b"Subject: " + "hei".encode("utf-16-be").replace(b"\0", b"\x01")),
        "eight bits in a header's name": letter(b"X-Gr\xfc\xdfe: x", b"Subject: behind it"),
        "UTF-8 in a header's name": letter("X-Grüße: x".encode(), b"Subject: behind it"),
        "NUL in a value": letter(b"Subject: one\0two\0", b"X-After: x"),
        "NUL alone as a value": letter(b"X-Nul:\0", b"Subject: x"),
        "NUL in a folded line": letter(b"Subject: one\r\n two\0three\r\n four"),
        "NUL in a name": letter(b"X-N\0ul: x", b"Subject: behind it"),
        "every byte in a value": letter(b"X-All: " + everything, b"Subject: x"),
        "ESC, BEL and DEL": letter(b"Subject: \x1b[2J\x07\x7f\x08"),
        "VT and FF": letter(b"Subject: a\x0bb\x0cc"),
        "a lone CR in a value": letter(b"Subject: one\rBcc: two@example.org"),
        "a lone LF in a value": letter(b"Subject: one\nX-Second: two"),
        "a lone LF that folds": letter(b"Subject: one\n two"),
        "LF CR in a value": letter(b"Subject: one\n\rtwo"),
        "percent, backslash and quotes": letter(b"Subject: 100 % \\ \"%s\" '{0}' $x `y`"),
        "braces, commas and a group": letter(
            b"To: undisclosed-recipients:;", b"Cc: a:b@x.example,c@y.example;"
        ),
        "nested comments": letter(b"From: (a (b (c))) bert (d) @ (e) sender.example", plain=False),
        "no-break spaces": letter("Subject:\u00a0one\u00a0two\u2028three".encode()),
        "right to left": letter("Subject: \u202egpj.exe\u202c".encode()),
    }


def _lengths() -> Mapping[str, bytes]:
    return {
        "a line of 998 bytes": letter(b"X-Long: " + b"x" * 990),
        "a line of 1,000 bytes": letter(b"X-Long: " + b"x" * 992),
        "a line of 2,048 bytes": letter(b"X-Long: " + b"x" * 2040),
        "a value of 60 KB in one line": letter(b"X-Long: " + b"x" * 60_000, b"Subject: behind it"),
        "a value of 60 KB in many lines": letter(
            b"X-Long: " + b"\r\n ".join([b"x" * 70] * 860), b"Subject: x"
        ),
        "a value of 100 KB in many lines": letter(
            b"X-Long: " + b"\r\n ".join([b"x" * 70] * 1430), b"Subject: x"
        ),
        "a value of 150 KB in many lines": letter(
            b"X-Long: " + b"\r\n ".join([b"x" * 70] * 2150), b"Subject: x"
        ),
        "a name of 100 bytes": letter(b"X-" + b"n" * 98 + b": x", b"Subject: x"),
        "a name of 1,000 bytes": letter(b"X-" + b"n" * 998 + b": x", b"Subject: x"),
        "a name of 3,000 bytes": letter(b"X-" + b"n" * 2998 + b": x", b"Subject: x"),
        "a thousand header fields": letter(*[b"X-Field-%d: %d" % (n, n) for n in range(1000)]),
        "a hundred recipients in To": letter(
            b"Cc: " + b",\r\n ".join(b"r%d@x.example" % n for n in range(100))
        ),
        "forty Received": letter(
            *[b"Received: from a%d by b%d; %b" % (n, n, _DATE.encode()) for n in range(40)]
        ),
    }


def _repeated() -> Mapping[str, bytes]:
    return {
        "two subjects": letter(b"Subject: one", b"Subject: two"),
        "three subjects, in other cases": letter(b"SUBJECT: one", b"subject: two", b"sUbJeCt: three"),
        "two senders": letter(
            b"From: Other <other@x.example>", b"Sender: a@x.example", b"Sender: b@x.example"
        ),
        "two dates and two ids": letter(b"Date: yesterday", b"Message-ID: <two@sender.example>"),
        "two content types": letter(
            b"Content-Type: text/plain", b"Content-Type: text/html", b"MIME-Version: 1.0"
        ),
        "the same field a hundred times": letter(*[b"X-Same: same"] * 100),
        "the same field in between": letter(b"X-A: 1", b"X-B: 2", b"X-A: 3", b"X-B: 4", b"X-A: 5"),
        "our headers, forged": letter(b"X-Spam-Flag: NO", b"X-Spam-Status: No, score=-99", b"Subject: x"),
        "our headers, forged and folded": letter(
            b"X-Spam-Status: No,\r\n\tscore=-99\r\n\ttests=none", b"Subject: x"
        ),
        "nearly our headers": letter(b"X-Spammer: x", b"X-Spam: yes", b"XX-Spam-Flag: YES", b"Subject: x"),
        "Return-Path and Bcc": letter(b"Return-Path: <x@x.example>", b"Bcc: secret@x.example", b"Subject: x"),
        "X-Envelope-From": letter(
            b"X-Envelope-From: <x@x.example>", b"X-Envelope-To: y@y.example", b"Subject: x"
        ),
        "Resent fields": letter(
            b"Resent-From: a@x.example", b"Resent-To: b@x.example", b"Resent-Date: " + _DATE.encode()
        ),
        "mbox leftovers": letter(
            b"Status: RO", b"X-Status:", b"Content-Length: 3", b"Lines: 9", b"Subject: x"
        ),
        "list fields": letter(
            b"List-Id: <l.x.example>", b"List-Unsubscribe: <mailto:u@x.example>", b"Precedence: bulk"
        ),
    }


def _shapes() -> Mapping[str, bytes]:
    return {
        "no byte at all": b"",
        "an empty line alone": b"\r\n",
        "two empty lines": b"\r\n\r\n",
        "a header and no empty line": b"Subject: x\r\n",
        "a header without a line end": b"Subject: x",
        "a header, an empty line, no body": b"Subject: x\r\n\r\n",
        "a body and no header": b"\r\n" + _BODY,
        "a body that looks like no header": _BODY,
        "a line without a colon in the header": letter(b"Subject: x", b"this is no header", b"X-After: x"),
        "a colon alone": letter(b": x", b"Subject: x"),
        "a space before the colon": letter(b"Subject : x", b"X-Other\t: y"),
        "no space after the colon": letter(b"Subject:x", b"X-Other:\ty"),
        "an empty value": letter(b"Subject:", b"X-Empty: ", b"X-Tab:\t"),
        "much space after the colon": letter(b"Subject:     x", b"X-Other: \t \t y"),
        "a name with signs in it": letter(b"X-!#$%&'*+-.^_`|~: x", b"Subject: x"),
        "a name that begins with a digit": letter(b"1: x", b"-: y", b"Subject: x"),
        "a name with a space in it": letter(b"X Other: y", b"Subject: x"),
        "an mbox line at the top": b"From bert@sender.example Sun Nov 22 05:00:00 2026\r\n"
        + letter(b"Subject: x"),
        "a quoted mbox line at the top": b">From bert@sender.example Sun Nov 22 05:00:00 2026\r\n"
        + letter(b"Subject: x"),
        "a byte order mark at the top": b"\xef\xbb\xbf" + letter(b"Subject: x"),
        "a line of white space for the empty one": b"Subject: x\r\n \t \r\nX-Body: is this one?\r\n\r\n"
        + _BODY,
        "fields that stop in the middle": letter(b"Subject: x", b"X-Cut"),
        "no From, no Date, no Message-ID": letter(b"Subject: x", plain=False),
        "a second message behind the first": letter(b"Subject: x", body=letter(b"Subject: y")),
        "header fields in the body": letter(
            b"Subject: x", body=b"X-Spam-Flag: YES\r\nSubject: y\r\n\r\n" + _BODY
        ),
    }


def _line_ends() -> Mapping[str, bytes]:
    lines = letter(b"Subject: x")
    return {
        "no final line end": lines.removesuffix(b"\r\n"),
        "no final line end, one long line": letter(b"Subject: x", body=b"x" * 5000),
        "a final CR": lines.removesuffix(b"\n"),
        "a final LF": lines.removesuffix(b"\r\n") + b"\n",
        "many empty lines at the end": lines + b"\r\n" * 50,
        "line ends of LF alone": lines.replace(b"\r\n", b"\n"),
        "line ends of LF in the body alone": letter(b"Subject: x", body=_BODY.replace(b"\r\n", b"\n")),
        "line ends of CR in the body": letter(b"Subject: x", body=b"one\rtwo\rthree\r"),
        "CR CR LF": letter(b"Subject: x", body=b"one\r\r\ntwo\r\r\n"),
        "LF CR": letter(b"Subject: x", body=b"one\n\rtwo\n\r"),
        "LF dot LF": letter(b"Subject: x", body=b"one\n.\ntwo\r\n"),
        "LF dot CR LF": letter(b"Subject: x", body=b"one\n.\r\ntwo\r\n"),
        "a lone dot": letter(b"Subject: x", body=b".\r\n"),
        "dots": letter(b"Subject: x", body=b".\r\n..\r\n...\r\n.x\r\n..x\r\n. \r\nx.\r\n"),
        "From in the body": letter(b"Subject: x", body=b"From here\r\n>From there\r\n>>From\r\n"),
        "white space at line ends": letter(b"Subject: x", body=b"one \r\ntwo\t\r\n \r\n\t\r\n"),
    }


def _bodies() -> Mapping[str, bytes]:
    # The same each time; a message is no secret.
    noise = random.Random(1).randbytes(20_000).replace(b"\r", b"x").replace(b"\n", b"\r\n")  # noqa: S311
    return {
        "every byte in the body": letter(b"Subject: x", body=bytes(range(256)) * 8 + b"\r\n"),
        "NUL in the body": letter(b"Subject: x", body=b"one\0two\r\n\0\r\n"),
        "Latin-1 in the body": letter(b"Subject: x", body=b"Gr\xfc\xdfe\r\n"),
        "UTF-8 in the body": letter(b"Subject: x", body="Grüße, 日本語, 🐟\r\n".encode()),
        "noise in the body": letter(b"Subject: x", body=noise + b"\r\n"),
        "a body line of 998 bytes": letter(b"Subject: x", body=b"x" * 998 + b"\r\n"),
        "a body line of 2,048 bytes": letter(b"Subject: x", body=b"x" * 2048 + b"\r\n"),
        "a body line of 100 KB": letter(b"Subject: x", body=b"x" * 100_000 + b"\r\n"),
        "a body of one byte": letter(b"Subject: x", body=b"x"),
        "a body of 65,535 bytes": letter(
            b"Subject: x", body=b"x" * 63 + b"\r\n" + (b"y" * 64 + b"\r\n") * 992 + b"\r\n"
        ),
        "a body of 200 KB": letter(b"Subject: x", body=(b"all work and no play\r\n") * 9100),
        "an advance fee": letter(b"Subject: x", body=b"US$ 18,500,000 is yours, dear friend, risk free\r\n"),
    }


def _mime() -> Mapping[str, bytes]:
    nested = b"x\r\n"
    for level in range(40):
        nested = b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n%b\r\n--b%d--\r\n' % (
            level,
            level,
            nested,
            level,
        )
    multipart = b'Content-Type: multipart/mixed; boundary="xx"'
    version = b"MIME-Version: 1.0"
    return {
        "nested forty deep": letter(
            version, *nested.split(b"\r\n\r\n", 1)[:1], body=nested.split(b"\r\n\r\n", 1)[1]
        ),
        "a boundary that never comes": letter(version, multipart, body=_BODY),
        "a boundary that is not closed": letter(
            version, multipart, body=b"--xx\r\n\r\none\r\n--xx\r\n\r\ntwo\r\n"
        ),
        "no boundary": letter(version, b"Content-Type: multipart/mixed", body=_BODY),
        "preamble and epilogue": letter(
            version, multipart, body=b"before\r\n--xx\r\n\r\none\r\n--xx--\r\nafter"
        ),
        "a part without header": letter(version, multipart, body=b"--xx\r\none\r\n--xx--\r\n"),
        "odd parameters": letter(
            version, b"Content-Type: text/plain; charset*0=utf; charset*1=-8; x==;;; y", body=_BODY
        ),
        "a message in a message": letter(
            version, b"Content-Type: message/rfc822", body=letter(b"Subject: inner")
        ),
        "signed": letter(
            version,
            b'Content-Type: multipart/signed; boundary="xx"; micalg=x',
            body=b"--xx\r\n\r\na \r\n--xx\r\n\r\nsig\r\n--xx--\r\n",
        ),
        "base64 with rubbish in it": letter(
            version, b"Content-Transfer-Encoding: base64", body=b"SGVs*bG8\r\n=\r\n"
        ),
        "quoted-printable that is cut": letter(
            version, b"Content-Transfer-Encoding: quoted-printable", body=b"one=\r\ntwo=3"
        ),
        "an unknown encoding": letter(
            version, b"Content-Transfer-Encoding: x-uuencode", body=b"begin 644 x\r\n#0V%T\r\nend\r\n"
        ),
        "eight bits declared as seven": letter(
            version, b"Content-Transfer-Encoding: 7bit", body=b"Gr\xfc\xdfe\r\n"
        ),
        "binary": letter(version, b"Content-Transfer-Encoding: binary", body=b"\x00\x01\xff\r\n" * 30),
        "HTML alone": letter(version, b"Content-Type: text/html", body=b"<p>Hello<br>\r\n<img src=x>\r\n"),
        "a calendar": letter(
            version,
            b"Content-Type: text/calendar; method=REQUEST",
            body=b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
        ),
        "a file name of eight bits": letter(
            version, b'Content-Disposition: attachment; filename="Gr\xfc\xdfe.txt"', body=b"x\r\n"
        ),
        "format flowed": letter(
            version,
            b"Content-Type: text/plain; format=flowed; delsp=yes",
            body=b"one \r\n two \r\n-- \r\nBert\r\n",
        ),
    }
