"""SpamAssassin and Rspamd see from us what they see from their own milters, and say the same.

Each message goes through Postfix twice, in front of the same engine: with
spamass-milter, or Rspamd's own milter, and with ours. What differs, and why, is
in docs/same-facts.md; the names of those symbols stand here.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mxweir.endpoint import Endpoint
from mxweir_ops.lab import letters
from mxweir_ops.lab.client import Client
from mxweir_ops.lab.letters import letter
from mxweir_ops.lab.odd import examples, odd
from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.postfix import Postfix
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.rspamd import Rspamd
from mxweir_ops.lab.spamass_milter import SpamassMilter
from mxweir_ops.lab.spamd import Spamd
from mxweir_ops.lab.stack import Plan, Stack
from mxweir_ops.postfix import MILTER_MAIL_MACROS

HONEST = letter(message_id="<x@sender.example>")
ODD = (
    *("folded by a tab", "folded to an empty line", "an encoded word of an unknown charset"),
    *("Latin-1 in the subject", "eight bits in a header's name", "NUL in a value", "a lone CR in a value"),
    *(
        "two subjects",
        "our headers, forged",
        "Return-Path and Bcc",
        "X-Envelope-From",
        "no byte at all",
        "no space after the colon",
    ),
    *(
        "no space after the colon",
        "a body and no header",
        "no final line end",
        "nested forty deep",
        "HTML alone",
        "forty Received",
    ),
)


class Case(NamedTuple):
    """One message: what it is, who sends it, how."""

    message: bytes = HONEST
    sender: str = "bert@sender.example"
    recipients: int = 1
    client: Mapping[str, Any] = {"address": "192.0.2.9"}
    tls: bool = False


CASES = {
    "an honest letter": Case(),
    "spam": Case(letter(letters.ADVANCE_FEE, "<x@sender.example>")),
    "GTUBE": Case(letter(letters.GTUBE, "<x@sender.example>")),
    "over IPv6": Case(client={"address": "2001:db8::9"}),
    "from a public network": Case(client={"address": "8.8.8.8"}),
    "from a private network": Case(client={"address": "10.1.2.3"}),
    "from this host": Case(client={"address": None}),
    "without a host name": Case(client={"address": "8.8.8.8", "name": "[UNAVAILABLE]"}),
    "HELO is an address": Case(client={"address": "8.8.8.8", "helo": "[8.8.8.8]", "name": "dns.example"}),
    "HELO is a word": Case(client={"address": "8.8.8.8", "helo": "friend", "name": "dns.example"}),
    "HELO has signs in it": Case(client={"address": "8.8.8.8", "helo": "a_b!c", "name": "dns.example"}),
    "the null sender": Case(sender=""),
    "spam from the null sender": Case(letter(letters.ADVANCE_FEE, "<x@sender.example>"), sender=""),
    "a sender in quotes": Case(sender='"b (x) c"@sender.example'),
    "a user who has logged in": Case(client={"address": "8.8.8.8", "login": "bob"}),
    "three recipients": Case(recipients=3),
    "encrypted": Case(client={"address": "8.8.8.8"}, tls=True),
    "encrypted and logged in": Case(client={"address": "8.8.8.8", "login": "bob"}, tls=True),
    **{name: Case(odd()[name], client={"address": "8.8.8.8"}) for name in ODD},
    **{name: Case(message) for name, message in examples() if name.startswith("sample-")},
}

FACTS = [
    ("IP", "X-Spam-Relays-External", r"^\[ ip=8\.8\.8\.8 "),
    ("IPV6", "X-Spam-Relays-External", r"^\[ ip=2001:db8::9 "),
    ("NO_NAME", "X-Spam-Relays-External", r"^\S+ ip=\S+ rdns= "),
    ("NAME", "X-Spam-Relays-External", r"^\S+ ip=\S+ rdns=dns\.example "),
    ("HELO_WORD", "X-Spam-Relays-External", r"^\S+ [^]]* helo=friend "),
    ("HELO_ADDRESS", "X-Spam-Relays-External", r"^\S+ [^]]* helo=!?\[?8\.8\.8\.8"),
    ("BY", "X-Spam-Relays-External", r"^\S+ [^]]* by=mx\.lab\.example "),
    ("AUTH", "X-Spam-Relays-Trusted", r"^\S+ [^]]* auth=\w"),
    ("SENDER", "EnvelopeFrom:addr", r"^bert\@sender\.example$"),
]
"""A rule of SpamAssassin's for each fact: one that differs shows as a symbol that differs."""

RULES = "".join(
    f"header LAB_{name} {where} =~ /{pattern}/\nscore LAB_{name} 0.01\n" for name, where, pattern in FACTS
)

RSPAMD_RULE = """
rspamd_config:register_symbol{ name = 'LAB_FACTS', type = 'normal', score = 0.01, callback = function(task)
  local sender, to = task:get_from('smtp'), {}
  for _, each in ipairs(task:get_recipients('smtp') or {}) do to[#to + 1] = each.addr:gsub('^m%d+', 'm') end
  local facts = { task:get_helo() or '-', task:get_hostname() or '-', tostring(task:get_from_ip()),
    task:get_user() or '-', sender and sender[1] and sender[1].addr or '-', table.concat(to, '+'),
    tostring(task:get_request_header('tls-version') or '-'),
    tostring(task:get_request_header('tls-cipher') or '-'),
    tostring(task:get_request_header('mta-name') or '-'), task:get_queue_id() ~= nil and 'queued' or '-',
    tostring(#task:get_received_headers()) }
  return true, 1.0, table.concat(facts, '|')
end }
"""
"""Tells all that Rspamd knows of client and envelope as one option of a symbol."""

LOG = "id: <$mid>, ($action): [$scores] [$symbols_scores_params], rcpts: <$smtp_rcpts>, end"


def lines_of_rspamd(directory: Path) -> str:
    """What goes over Rspamd's configuration: the rule, and a line in its log for each message."""
    rule = directory / "lab.lua"
    rule.write_text(RSPAMD_RULE)
    return f'lua = "{rule}";\nlogging {{ level = "info"; log_format = "{LOG}"; }}\n'


@pytest.fixture(scope="module")
def settings() -> Iterator[Mapping[str, str]]:
    """Main.cf parameters that all have, with a certificate."""
    with temporary_directory() as directory:
        key, certificate = directory / "key", directory / "certificate"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make += ["-subj", "/CN=mx.lab.example", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(make, check=True, capture_output=True, timeout=60)
        yield {
            "relay_domains": "example.org",
            "local_header_rewrite_clients": "",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(certificate),
            "smtpd_tls_key_file": str(key),
            "milter_mail_macros": MILTER_MAIL_MACROS,
        }


def send_all(port: int) -> None:
    """Every case, each to recipients of its own."""
    for number, (name, case) in enumerate(CASES.items()):
        with Client(port, **case.client) as client:
            if case.tls:
                client.starttls()
            assert client.mail(case.sender, "BODY=8BITMIME").code == 250, name
            for recipient in range(case.recipients):
                assert client.rcpt(f"m{number}-{recipient}@example.org").code == 250, name
            client.bdat(case.message)


def ours(engine: str, endpoint: Endpoint, settings: Mapping[str, str]) -> Plan:
    """A stack with this engine alone, that scans everybody's mail."""
    milter = 'skip = []\nmax_scan_size = "1MiB"\ndeadline = "60s"'
    return Plan(engine=endpoint, engine_type=engine, milter=milter, settings=settings)


Seen = Mapping[str, tuple[float, Mapping[str, str]]]
"""By the case's name: the score, and the symbols with what they say beside."""


def delivered(mx: Postfix) -> Seen:
    """What stands in X-Spam-Status of what was delivered."""
    total = sum(case.recipients for case in CASES.values())
    assert wait_until(lambda: len(list((mx.maildir.path / "new").glob("*"))) >= total, 240)
    found = {}
    for delivery in mx.maildir.deliveries():
        number = re.search(rb"^Delivered-To: m(\d+)-0@", delivery.raw, re.MULTILINE)
        if number:
            status = delivery.header("X-Spam-Status") or ""
            score, names = re.findall(r"score=(\S+) .*?tests=(.*?)(?: autolearn|$)", status)[0]
            symbols = [name.strip() for name in names.split(",") if name != "none"]
            found[list(CASES)[int(number[1])]] = float(score), dict.fromkeys(symbols, "")
    return found


@pytest.fixture(scope="module")
def spamassassin(settings: Mapping[str, str]) -> Iterator[tuple[Seen, Seen]]:
    """What SpamAssassin said, asked by spamass-milter and by us."""
    with ExitStack() as stack:
        directory, second = (stack.enter_context(temporary_directory()) for _ in range(2))
        spamd = stack.enter_context(Spamd(directory, RULES))
        milter = stack.enter_context(SpamassMilter(directory, spamd.endpoint))
        with Postfix(directory, {**settings, "smtpd_milters": str(milter.endpoint)}) as mx:
            send_all(mx.port)
            theirs = delivered(mx)
        with Stack(second, ours("spamd", spamd.endpoint, settings)) as mxweir:
            send_all(mxweir.port)
            yield theirs, delivered(mxweir.mx)


@pytest.fixture(scope="module")
def rspamd(settings: Mapping[str, str]) -> Iterator[tuple[Seen, Seen]]:
    """What Rspamd said, asked by its own milter and by us."""
    with ExitStack() as stack:
        directory, second = (stack.enter_context(temporary_directory()) for _ in range(2))
        server = stack.enter_context(Rspamd(directory, lines_of_rspamd(directory)))
        with Postfix(directory, {**settings, "smtpd_milters": str(server.milter)}) as mx:
            send_all(mx.port)
        # A line may be written after its answer.
        assert wait_until(lambda: set(logged(server.log())) == set(CASES), 60)
        theirs = logged(server.log())
        length = len(server.log())
        with Stack(second, ours("rspamd", server.endpoint, settings)) as mxweir:
            send_all(mxweir.port)
        assert wait_until(lambda: set(logged(server.log()[length:])) == set(CASES), 60)
        yield theirs, logged(server.log()[length:])


def logged(log: str) -> Seen:
    """What stands in Rspamd's log."""
    found = {}
    for line in log.splitlines():
        told = re.search(r"\]: *id: |id: <.*?>, \((.*?)\): \[(\S+)/\S+\] \[(.*)\], rcpts: <m(\d+)-0@", line)
        if told and told[4]:
            symbols = re.findall(r"([A-Z][A-Z0-9_]+)\((-?[\d.]+)\)(?:\{(.*?)\})?(?:,|$)", told[3])
            facts = {name: f"{score} {options}" for name, score, options in symbols}
            found[list(CASES)[int(told[4])]] = float(told[2]), {**facts, "action": told[1]}
    return found


def different(both: tuple[Seen, Seen]) -> Mapping[str, tuple[float, set[str], set[str]]]:
    """Where the two do not agree: by how much the score differs, symbols of theirs alone, of ours alone."""
    theirs, mine = both
    assert set(theirs) == set(mine) == set(CASES)
    return {
        name: (
            round(mine[name][0] - theirs[name][0], 1),
            set(dict(theirs[name][1].items() - mine[name][1].items())),
            set(dict(mine[name][1].items() - theirs[name][1].items())),
        )
        for name in CASES
        if mine[name] != theirs[name]
    }


NO_SPACE = "no space after the colon"


def test_spamassassin_says_the_same_to_us_as_to_spamass_milter(spamassassin: tuple[Seen, Seen]) -> None:
    # libmilter puts a space where there was none, unless it is asked not to: it hides what the rule is for.
    assert different(spamassassin) == {NO_SPACE: (1.0, set(), {"HDRS_MISSP"})}
    named = {name for _, symbols in spamassassin[1].values() for name in symbols}
    assert named >= {f"LAB_{name}" for name, _, _ in FACTS}


def test_rspamd_says_the_same_to_us_as_to_its_own_milter(rspamd: tuple[Seen, Seen]) -> None:
    assert different(rspamd) == {}
    _, symbols = rspamd[1]["encrypted and logged in"]
    assert re.fullmatch(
        r"0.01 mail\.sender\.example\|mail\.sender\.example\|8\.8\.8\.8\|bob\|bert@sender\.example\|"
        r"m-0@example\.org\|TLSv1\.3\|TLS_\w+\|mx\.lab\.example\|queued\|0;?",
        symbols["LAB_FACTS"],
    )
