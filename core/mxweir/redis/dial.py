"""How a connection to Redis is made: resolved, opened, logged in, with the scripts in place."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import hiredis

from mxweir.clock import Clock
from mxweir.config.sections import Redis
from mxweir.endpoint import Endpoint, Inet, Unix
from mxweir.events import Observer
from mxweir.redis.errors import RedisError
from mxweir.redis.replies import error_of
from mxweir.redis.script import Script
from mxweir.redis.url import Login
from mxweir.redis.wire import Link
from mxweir.service import SettingError
from mxweir.threads import in_thread

_OPEN_SECONDS = 1.0
_GREET_SECONDS = 1.0

# An idle connection that a firewall forgets, or of which the other host is gone, is found by the kernel
# within 45 s, and not by the first question after it.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Tls(NamedTuple):
    """What TLS takes; `name` "": the certificate has that of the host."""

    context: ssl.SSLContext
    name: str


@dataclass(frozen=True, slots=True)
class Manners:
    """What is the same for every connection of one client."""

    where: str
    """The address of it all, for where there is no better one to tell."""
    login: Login
    database: int
    tls: Tls | None
    observe: Observer
    clock: Clock
    scripts: dict[str, Script] = field(default_factory=dict)
    """All that were ever called, by their hash; they are ours, so there are few."""


def tls_of(settings: Redis) -> Tls | None:
    """TLS as it is set up, or none. Raises SettingError in one line."""
    if not settings.url.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except OSError as error:
        raise SettingError(f"redis.ca: {settings.ca} cannot be read: {error.strerror or error}") from None
    if settings.cert is not None and settings.key is not None:
        try:
            # Without this, OpenSSL asks for the passphrase of a key at the terminal.
            context.load_cert_chain(settings.cert, settings.key, password=lambda: "")
        except OSError as error:
            raise SettingError(
                f"redis.cert, redis.key: {settings.cert} and {settings.key} cannot be read together: "
                f"{error.strerror or error}"
            ) from None
    return Tls(context, settings.tls_name)


async def open_link(endpoint: Endpoint, tls: Tls | None, make: Callable[[], Link]) -> Link:
    """A connection to an endpoint, within a second. Raises RedisError "connection"."""
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            return await _open(endpoint, tls, make)
    except TimeoutError:
        raise RedisError("connection", f"not connected within {_OPEN_SECONDS:g} s") from None
    except (OSError, ValueError) as error:  # ssl.SSLError is the one, what IDNA says of a name the other
        raise RedisError("connection", _told(error)) from None


def _told(error: OSError | ValueError) -> str:
    """What the system says; asyncio puts an address in its place, which the event has already."""
    text = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number and text.startswith("Connect call failed") else text


async def greet(link: Link, login: Login, database: int, scripts: Iterable[Script]) -> bytes:
    """Log in, and put the scripts in place, all in one go and within a second.

    The role that the server has, such as "slave"; b"" where we may not ask. Raises RedisError.
    """
    replies: list[asyncio.Future[Any]] = []
    if login.password:
        user = (login.user,) if login.user else ()
        replies.append(link.ask(("AUTH", *user, login.password), _GREET_SECONDS))
    replies.append(link.ask(("PING",), _GREET_SECONDS))
    if database:
        replies.append(link.ask(("SELECT", database), _GREET_SECONDS))
    role = link.ask(("ROLE",), _GREET_SECONDS)
    # For people who look at CLIENT LIST; that it is not allowed is no harm. Nor that a script is not
    # loaded here: then it is where it is first called.
    link.ask(("CLIENT", "SETNAME", "mxweir"), _GREET_SECONDS)
    for script in scripts:
        link.ask(("SCRIPT", "LOAD", script.source), _GREET_SECONDS)
    for reply in await asyncio.gather(*replies):
        if isinstance(reply, RedisError):
            raise reply
        if isinstance(reply, hiredis.ReplyError):
            raise _unmasked(error_of(str(reply)))
        if reply not in (b"OK", b"PONG"):
            raise RedisError("nonsense", "it does not greet as Redis does")
    told = await role
    return bytes(told[0]) if isinstance(told, list) and told and isinstance(told[0], bytes) else b""


async def time_of(link: Link) -> int:
    """What time the server has (µs); 0 where we may not ask. Raises RedisError."""
    reply = await link.ask(("TIME",), _GREET_SECONDS)
    if isinstance(reply, RedisError):
        raise reply
    try:
        seconds, micros = map(int, reply)
    except (TypeError, ValueError):
        return 0
    return seconds * 1_000_000 + micros


def _unmasked(error: RedisError) -> RedisError:
    """A server that does not know AUTH repeats the password in its error."""
    if error.kind == "error":
        return RedisError("refused", "it does not take our user, password or database")
    return error


async def _open(endpoint: Endpoint, tls: Tls | None, make: Callable[[], Link]) -> Link:
    loop = asyncio.get_running_loop()
    if isinstance(endpoint, Unix):
        return (await loop.create_unix_connection(make, endpoint.path))[1]
    error: OSError = ConnectionRefusedError("no address")
    for address in await _addresses(endpoint):
        options: dict[str, Any] = (
            {"ssl": tls.context, "server_hostname": tls.name or endpoint.host} if tls else {}
        )
        try:
            transport, link = await loop.create_connection(make, address, endpoint.port, **options)
        except OSError as caught:
            error = caught
            continue
        _keep_alive(transport.get_extra_info("socket"))
        return link
    raise error


async def _addresses(endpoint: Inet) -> Sequence[str]:
    """The addresses of a host; asked for in a thread of its own, for a resolver may hang."""

    def resolve() -> list[str]:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[4][0]) for address in found))

    try:
        socket.inet_pton(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, endpoint.host)
    except OSError:
        return await in_thread(resolve)
    return (endpoint.host,)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, seconds)
