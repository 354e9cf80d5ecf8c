"""Rspamd's protocol as bytes: one `POST /checkv2` out, one JSON answer in. Opens no socket.

    POST /checkv2 HTTP/1.1            HTTP/1.1 200 OK
    IP: 203.0.113.9                   Content-Length: 843
    Helo: mail.sender.example
    From: <a@sender.example>          {"is_skipped":false,"score":8.0,
    Rcpt: <b@example.org>              "required_score":15.0,"action":"add header",
    Content-Length: 2187               "symbols":{"MISSING_MID":{"score":2.5,…},…},…}

    …the message…

What it is told about the client and the envelope are the headers that Rspamd's
own milter makes of the same facts (src/libserver/milter.c, rspamd_milter_to_http
and rspamd_milter_macro_http; the same in 3.4 and 4.1): a client without a
verified name has no `Hostname`, addresses stand in angle brackets, each
recipient has a line. It makes no Received header of ours necessary: Rspamd takes
the last hop from these.

Rspamd's verdict is an action, with a score that mostly explains it. To be
measured with our thresholds, an action that was taken in spite of the score
counts as a score: "reject" (a virus scanner's word), "discard" and "quarantine"
at least as `required_score`, Rspamd's own for rejecting; "no action" at or above
it (a list of friends) as 0. "greylist", "add header" and "rewrite subject" are
steps of the score alone. "soft reject" asks us to have the sender try again: we
do not, for the message passed all else and a scanner that cannot decide must not
stop mail; see docs/decisions/0012-rspamds-actions-count-as-scores.md.
"""

import json
import re
from typing import Any, NoReturn

import h11

from mxweir_milter.engines.error import EngineError
from mxweir_milter.facts import bytes_of
from mxweir_milter.message import Message
from mxweir_milter.verdict import Reason, Scored, scored

LARGEST_RESPONSE = 2**20
"""Bytes. An answer names what it found: for a message of half a megabyte that can be long."""

_MOST_RECIPIENT_BYTES = 48 * 1024
"""Rspamd closes the connection on headers of more than 80 KiB (HTTP_MAX_HEADER_SIZE of its parser)."""

_LONGEST_VALUE = 2048

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ACTION = re.compile(r"[ -~]{1,64}")
_AGAINST = frozenset({"reject", "discard", "quarantine"})


class Check:
    """One message on its way to Rspamd and back."""

    def __init__(self, message: Message, password: str, engine: str) -> None:
        self._engine = engine
        self._http = h11.Connection(h11.CLIENT)
        self._status = b""
        self._body = bytearray()
        self._received = 0
        head = h11.Request(method="POST", target="/checkv2", headers=_headers(message, password))
        sent = self._http.send(head) or b"", message.content
        self._http.send_with_data_passthrough(h11.Data(data=message.content))  # type: ignore[arg-type]
        self._http.send(h11.EndOfMessage())
        self.request = sent
        """What to send, in pieces."""

    def feed(self, piece: bytes) -> Scored | None:
        """More of the answer; None as long as it is incomplete. Raises EngineError."""
        self._received += len(piece)
        if self._received > LARGEST_RESPONSE:
            raise _bad(f"more than {LARGEST_RESPONSE} bytes")
        try:
            self._http.receive_data(piece)
            return self._events()
        except h11.RemoteProtocolError as error:
            if not self._received:
                raise EngineError(Reason.BROKE_OFF, "closed without an answer") from None
            raise _bad(str(error)) from None

    def end(self) -> Scored:
        """Rspamd has closed the connection. Raises EngineError if that was too early."""
        if (result := self.feed(b"")) is not None:
            return result
        raise _bad("closed within the answer")

    def _events(self) -> Scored | None:
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self._status = b"%d %b" % (event.status_code, event.reason)
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self._result()
            elif not isinstance(event, h11.InformationalResponse):
                raise EngineError(Reason.BROKE_OFF, "closed without an answer")
        return None

    def _result(self) -> Scored:
        if not self._status.startswith(b"200 "):
            said = f"{self._status[:80].decode('ascii', 'replace')}: {bytes(self._body[:80])!r}"
            raise _bad(f"Rspamd says {said}")
        return read_answer(bytes(self._body), self._engine)


def read_answer(body: bytes, engine: str) -> Scored:
    """The result that stands in an answer of status 200; raises EngineError."""
    try:
        # What a message brings (a symbol's options, a subject) may be in any charset, and Rspamd repeats it.
        text = body.decode("utf-8", "replace")
        return _scored(json.loads(text, parse_int=float, parse_constant=_no_number), engine)
    except (ValueError, RecursionError, KeyError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _bad(f"{what} in {body[:80]!r}") from None


def _scored(answer: Any, engine: str) -> Scored:
    if not isinstance(answer, dict) or "error" in answer:
        raise ValueError("no result")
    action, skipped, symbols = answer["action"], answer["is_skipped"], answer["symbols"]
    if not isinstance(action, str) or not _ACTION.fullmatch(action):
        raise ValueError(f"action {action!r}")
    if not isinstance(skipped, bool) or not isinstance(symbols, dict):
        raise ValueError("is_skipped or symbols of a wrong type")
    score, required = _number(answer["score"]), _number(answer["required_score"])
    if skipped and action == "no action":
        raise EngineError(Reason.ENGINE_SKIPPED, "Rspamd is set to skip this message")
    strongest = sorted(symbols, key=lambda name: (-abs(_points(symbols[name])), name))
    return scored(_meant(score, required, action), required, strongest, engine, action)


def _meant(score: float, required: float, action: str) -> float:
    """The score that stands for Rspamd's action, see above."""
    if action in _AGAINST:
        return max(score, required)
    return 0.0 if action == "no action" and score >= required else score


def _number(value: object) -> float:
    if not isinstance(value, float):
        raise ValueError(f"{value!r} in place of a number")
    return value


def _points(symbol: object) -> float:
    """A symbol's score, which only its place in the list depends on."""
    points = symbol.get("score") if isinstance(symbol, dict) else None
    return points if isinstance(points, float) else 0.0


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _headers(message: Message, password: str) -> list[tuple[bytes, bytes]]:
    client, envelope = message.client, message.envelope
    facts = [
        ("IP", client.address),
        ("Hostname", "" if client.name == "unknown" else client.name),
        ("Helo", client.helo),
        ("From", f"<{envelope.sender}>"),
        ("User", envelope.sasl_username),
        ("Queue-Id", envelope.queue_id),
        ("MTA-Name", client.host),
        ("TLS-Version", client.tls.version if client.tls else ""),
        ("TLS-Cipher", client.tls.cipher if client.tls else ""),
        ("Password", password),
    ]
    headers = [(name.encode(), _value(value)) for name, value in facts if value]
    left = _MOST_RECIPIENT_BYTES
    for recipient in envelope.recipients:
        headers.append((b"Rcpt", _value(f"<{recipient}>")))
        left -= len(headers[-1][1]) + len("Rcpt: \r\n")
        if left < 0:
            break
    return [
        (b"Host", b"rspamd"),
        (b"Connection", b"close"),
        (b"Flags", b"milter"),
        *headers,
        (b"Content-Length", b"%d" % len(message.content)),
    ]


def _value(text: str) -> bytes:
    """A header's value: whatever a client said stays within its line."""
    return _CONTROL.sub(b"?", bytes_of(text)[:_LONGEST_VALUE]).strip()


def _bad(detail: str) -> EngineError:
    return EngineError(Reason.BAD_ANSWER, detail)
