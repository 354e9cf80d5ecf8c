"""Postfix's policy delegation protocol, without any I/O.

Bytes go in, requests come out (Postfix SMTPD_POLICY_README). A request is lines
of `name=value` in any order, ended by an empty line; a reply is one line and an
empty line. Postfix writes the attributes in an order of its own, always the
same, and one anchored regular expression reads exactly that order ten times as
fast as splitting lines does. Whatever does not match goes through the general
parser behind it, which says the same about whatever both can read.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_REQUEST = 64 * 1024
"""Bytes in a request; Postfix's own are below 4 KiB."""

MAX_ATTRIBUTES = 128
"""Attributes in a request; Postfix 3.12 sends 32."""


class ProtocolError(Exception):
    """What came in is no policy request; the text is from a closed set."""


Attributes = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""The values of a `Request`, in its order, without the names: a plain tuple is taken apart faster."""


class Request(NamedTuple):
    """The attributes that mxweir reads, raw, in Postfix's order; empty where it has nothing to say."""

    protocol_state: bytes = b""
    client_address: bytes = b""
    helo_name: bytes = b""
    sender: bytes = b""
    recipient: bytes = b""
    queue_id: bytes = b""
    instance: bytes = b""
    size: bytes = b""
    sasl_username: bytes = b""
    policy_context: bytes = b""


# fmt: off
_SENT = [
    "protocol_state", "protocol_name", "client_address", "client_name", "client_port",
    "reverse_client_name", "server_address", "server_port", "helo_name", "sender", "recipient",
    "recipient_count", "queue_id", "instance", "size", "etrn_domain", "stress", "sasl_method",
    "sasl_username", "sasl_sender", "ccert_subject", "ccert_issuer", "ccert_fingerprint",
    "ccert_pubkey_fingerprint", "encryption_protocol", "encryption_cipher", "encryption_keysize",
    "tls_sni", "policy_context", "compatibility_level", "mail_version",
]
# fmt: on
"""The order in which Postfix 3.1 and later sends its attributes (src/smtpd/smtpd_check.c)."""

_SENT_LATELY = {"tls_sni", "compatibility_level", "mail_version"}
"""Those that came with 3.8 and 3.12; older ones leave them out."""


_VALUE = ".{0,2000}+"
"""No longer, so that what matches is smaller than MAX_REQUEST."""


def _pattern(name: str) -> str:
    line = f"{name}=({_VALUE})\n" if name in Request._fields else f"{name}={_VALUE}\n"
    return f"(?:{line})?" if name in _SENT_LATELY else line


_in_order = re.compile(f"request=smtpd_access_policy\n{''.join(map(_pattern, _SENT))}\n".encode()).fullmatch


class RequestReader:
    """Turns one connection's bytes into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Sequence[Attributes]:
        """Take the next bytes; returns the requests that they complete.

        Raises ProtocolError; the connection is then to be closed, since where
        the next request begins is not known.
        """
        # Looking for b"\0" would cost a question that comes alone a tenth of all that it costs.
        if not self._buffer and 0 not in data and (match := _in_order(data)):
            return (match.groups(),)  # type: ignore[return-value] # as many groups as Request has fields
        try:
            return self._feed(data)
        except ProtocolError:
            self._buffer.clear()
            raise

    @property
    def pending(self) -> bool:
        """Whether a request has begun and not ended."""
        return bool(self._buffer)

    def _feed(self, data: bytes) -> list[Request]:
        buffer = self._buffer
        searched = max(0, len(buffer) - 1)
        buffer += data
        requests: list[Request] = []
        start = 0
        while (end := buffer.find(b"\n\n", max(start, searched))) >= 0:
            requests.append(parse_request(bytes(buffer[start : end + 1])))
            start = end + 2
        del buffer[:start]
        if len(buffer) > MAX_REQUEST:
            raise ProtocolError("request too large")
        if buffer.startswith(b"\n"):
            raise ProtocolError("empty request")
        return requests


def parse_request(text: bytes) -> Request:
    """Read one request, its lines each ended by a newline, without the empty line at the end."""
    if len(text) >= MAX_REQUEST:
        raise ProtocolError("request too large")
    if b"\0" in text:
        raise ProtocolError("NUL in request")
    lines = text.split(b"\n")[:-1]
    if len(lines) > MAX_ATTRIBUTES:
        raise ProtocolError("too many attributes")
    attributes: dict[str, bytes] = {}
    for line in lines:
        name, equals, value = line.partition(b"=")
        if not equals or not name:
            raise ProtocolError("line without name=value")
        attributes[name.decode("latin-1")] = value
    if attributes.get("request") != b"smtpd_access_policy":
        raise ProtocolError("not request=smtpd_access_policy")
    return Request._make(map(attributes.get, Request._fields, _EMPTY))


_EMPTY = (b"",) * len(Request._fields)


def format_reply(action: str) -> bytes:
    """One reply; an action is a line of printable text, and nothing else can get out."""
    if not action or not action.isprintable():
        raise ValueError(f"not a line of printable text: {action!r}")
    return f"action={action}\n\n".encode()


def format_request(attributes: dict[str, str]) -> bytes:
    """A request as Postfix would send it, for tests and tools."""
    lines = {"request": "smtpd_access_policy"} | attributes
    return (
        "".join(f"{name}={value}\n" for name, value in lines.items()).encode("utf-8", "surrogateescape")
        + b"\n"
    )
