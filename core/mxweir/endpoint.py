"""Where a server listens or is reached, written as Postfix writes it.

`inet:127.0.0.1:10040`, `inet:[::1]:10040`, `unix:/run/mxweir/policy`
(Postfix postconf(5), "check_policy_service").
"""

from dataclasses import dataclass

_SUN_PATH = 107
"""Bytes that a unix socket's path may have (Linux unix(7): 108 with the closing NUL)."""


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix-domain stream socket at an absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Inet:
    """A TCP port on a host name or address; IPv6 addresses without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"inet:{host}:{self.port}"


Endpoint = Unix | Inet


def parse(text: str) -> Endpoint:
    """Read an address in Postfix's notation; ValueError says what would be right."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix":
        if not rest.startswith("/") or "\0" in rest:
            raise ValueError(
                f"{text!r}: a unix socket needs an absolute path, such as unix:/run/mxweir/policy"
            )
        if len(rest.encode()) > _SUN_PATH:
            raise ValueError(f"{text!r}: the path of a unix socket may have at most {_SUN_PATH} bytes")
        return Unix(rest)
    host, colon, port = rest.rpartition(":")
    if scheme != "inet" or not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(
            f"{text!r} is not an address such as inet:127.0.0.1:10040 or unix:/run/mxweir/policy"
        )
    if not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: a port lies between 1 and 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, such as inet:[::1]:10040")
    return Inet(host, int(port))
