"""What a scanner answers, as bytes, right or wrong in one place: for both protocols.

spamd's answer to SYMBOLS (spamd/PROTOCOL of SpamAssassin 4.0) and Rspamd's to
`POST /checkv2`, with the fields that version 3.4 sends.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

SYMBOLS = ("BAYES_00", "DKIM_VALID")
"""What every right answer names."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one kind of scanner words its answers.

    `answer(score, length_error)` takes the score as the text that goes into the
    answer, None to leave it out, and what to add to the announced length.
    `endless` begins an answer that is right so far and has no announced end,
    `more` goes on with it; `refusal` is a well-formed "not now".
    """

    name: str
    answer: Callable[[str | None, int], bytes]
    endless: bytes
    more: bytes
    refusal: bytes


def _spamd(score: str | None, length_error: int = 0) -> bytes:
    body = ",".join(SYMBOLS).encode()
    said = "" if score is None else f"Spam: {_is_spam(score, 5.0)} ; {score} / 5.0\r\n"
    return f"SPAMD/1.1 0 EX_OK\r\nContent-length: {len(body) + length_error}\r\n{said}\r\n".encode() + body


def _rspamd(score: str | None, length_error: int = 0) -> bytes:
    fields = {
        "is_skipped": "false",
        **({} if score is None else {"score": "NaN" if score == "nan" else score}),
        "required_score": "15.0",
        "action": '"reject"' if _is_spam(score, 15.0) else '"no action"',
        "symbols": json.dumps({name: {"name": name, "score": 0.1} for name in SYMBOLS}),
    }
    body = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
    length = f"Content-Length: {len(body) + length_error}\r\n"
    return f"{_HTTP}{length}\r\n{body}".encode()


def _is_spam(score: str | None, threshold: float) -> bool:
    return score is not None and float(score) >= threshold


_HTTP = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"

PROTOCOLS = {
    "spamd": Protocol(
        "spamd",
        _spamd,
        endless=b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.1 / 5.0\r\n\r\n",
        more=b"ENDLESS," * 4096,
        refusal=b"SPAMD/1.1 75 EX_TEMPFAIL\r\n\r\n",
    ),
    "rspamd": Protocol(
        "rspamd",
        _rspamd,
        endless=f'{_HTTP}\r\n{{"score":0.1,"required_score":15.0,"x":"'.encode(),
        more=b"endless " * 4096,
        refusal=b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy",
    ),
}
