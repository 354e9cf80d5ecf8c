"""Where Redis is, as one URL says it. Pure.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]
    redis+unix://[USER:PASSWORD@]/PATH[?db=DB]
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/MASTER[/DB][?sentinel_password=...]
    redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]

`rediss` in front instead of `redis` is TLS. What is written about a URL never shows
any part of it: a sign that was not encoded can put the password anywhere.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote

from mxweir.endpoint import Endpoint, Inet, Unix

PORT = 6379
SENTINEL_PORT = 26379

_MOST_ADDRESSES = 64
_ENCODE = "signs such as @ : / ? # % in a user or password are written %40 %3A %2F %3F %23 %25"


class Topology(StrEnum):
    """Who says which server a key belongs to."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": Topology.SINGLE,
    "redis+unix": Topology.SINGLE,
    "redis+sentinel": Topology.SENTINEL,
    "redis+cluster": Topology.CLUSTER,
}


@dataclass(frozen=True, slots=True)
class Login:
    """By whom and with what; both empty: not at all, `user` empty: by the password alone."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Url:
    """Where Redis is; as a text, without who we are to it."""

    topology: Topology
    addresses: tuple[Endpoint, ...]
    """The server; the sentinels; some nodes of the Cluster."""
    tls: bool = False
    login: Login = Login()
    database: int = 0
    master: str = ""
    """What the sentinels call the master."""
    sentinel_login: Login = Login()

    def __str__(self) -> str:
        tls = " over TLS" if self.tls else ""
        name = f" ({self.master})" if self.master else ""
        return f"{self.topology} {', '.join(map(str, self.addresses))}{name}{tls}"


def parse_url(text: str) -> Url:
    """Read a URL; raises ValueError with what would be right."""
    scheme, found, rest = text.partition("://")
    tls = scheme.startswith("rediss")
    scheme = scheme.replace("rediss", "redis", 1)
    if not found or scheme not in _SCHEMES or (tls and scheme == "redis+unix"):
        raise ValueError(
            "it begins with none of redis:// rediss:// redis+unix:// redis+sentinel:// rediss+sentinel:// "
            "redis+cluster:// rediss+cluster://"
        )
    rest, _, query = rest.partition("?")
    credentials, at, place = rest.rpartition("@")
    hosts, _, path = place.partition("/")
    login = _login(credentials, at)
    if scheme == "redis+unix":
        database = _database(_options(query, ("db",)).get("db", ""))
        return Url(Topology.SINGLE, (_socket(hosts, path),), False, login, database)
    if scheme == "redis+sentinel":
        return _sentinel(hosts, path, query, tls, login)
    _options(query, ())
    addresses = _addresses(hosts, PORT)
    if _SCHEMES[scheme] is Topology.SINGLE and len(addresses) > 1:
        raise ValueError("it names several hosts; that takes redis+sentinel:// or redis+cluster://")
    if _SCHEMES[scheme] is Topology.CLUSTER and path:
        raise ValueError("nothing stands behind the hosts of a Cluster: it has no databases")
    return Url(_SCHEMES[scheme], addresses, tls, login, _database(path))


def _sentinel(hosts: str, path: str, query: str, tls: bool, login: Login) -> Url:
    master, _, database = path.partition("/")
    if not master or (master.isdigit() and not database):
        raise ValueError(
            "behind the sentinels stands what they call the master, such as /mymaster or /mymaster/0"
        )
    options = _options(query, ("sentinel_user", "sentinel_password"))
    return Url(
        Topology.SENTINEL,
        _addresses(hosts, SENTINEL_PORT),
        tls,
        login,
        _database(database),
        _decoded(master),
        Login(options.get("sentinel_user", ""), options.get("sentinel_password", "")),
    )


def _login(credentials: str, at: str) -> Login:
    user, colon, password = credentials.partition(":")
    if at and not (colon and password):
        raise ValueError(f"in front of the @ stands user:password or :password; {_ENCODE}")
    return Login(_decoded(user), _decoded(password))


def _addresses(hosts: str, port: int) -> tuple[Endpoint, ...]:
    found = tuple(_address(host, port) for host in hosts.split(","))
    if len(found) > _MOST_ADDRESSES:
        raise ValueError(f"it names more than {_MOST_ADDRESSES} hosts; some of them are enough")
    return found


def _address(text: str, default: int) -> Endpoint:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?", text)
    port = int(match[2] or default) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"a host is written HOST, HOST:PORT, or [IPv6]:PORT; {_ENCODE}")
    return Inet(match[1].strip("[]"), port)


def _socket(hosts: str, path: str) -> Endpoint:
    found = f"/{_decoded(path)}"
    if re.search(r"/[0-9]+$", path):
        raise ValueError(
            "the database of a unix socket is written behind a ?, such as redis+unix:///path?db=0"
        )
    if hosts or not path or "\0" in found or len(found.encode()) > 107:
        raise ValueError("a unix socket is written redis+unix:///path, with at most 107 bytes of path")
    return Unix(found)


def _database(text: str) -> int:
    if text and re.fullmatch(r"[0-9]{1,4}", text) is None:
        raise ValueError("the database is a number, such as /0 (?db=0 for a unix socket)")
    return int(text or 0)


def _options(query: str, known: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in known:
            which = f"only {' and '.join(known)}" if known else "nothing"
            raise ValueError(f"behind the ? stands {which}; {_ENCODE}")
        options[name] = _decoded(value)
    return options


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("its percent-encoding is no UTF-8") from None
