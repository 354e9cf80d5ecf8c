"""What `mxweir doctor` looks at. Each check is one function.

    setup.py        the configuration's warnings, who can read its secrets
    sockets.py      whether the daemons answer where they are to listen
    domains.py      the domains file, the tables on this host
    tables.py       those that Postfix has of its own
    database.py     PostgreSQL: connection, schema, index audit
    redis.py        Redis: connection, permissions, how long it takes

A new check is written into one of these, or a file of its own, and added to CHECKS.
"""

from collections.abc import Callable, Iterator, Mapping

from mxweir_ops.checkup import domains, redis, setup, sockets
from mxweir_ops.checkup.finding import BAD, Finding, Host

Check = Callable[[Host], Iterator[Finding]]


def _postgres(host: Host) -> Iterator[Finding]:
    if host.config.postgres is None:
        return
    try:
        from mxweir_ops.checkup import database  # noqa: PLC0415 - psycopg is an extra
    except ModuleNotFoundError as error:
        yield Finding(BAD, "PostgreSQL", f"{error}; install it with: pip install 'mxweir[postgres]'")
    else:
        yield from database.check(host.config.postgres)


def _redis(host: Host) -> Iterator[Finding]:
    if host.config.redis is not None:
        yield from redis.check(host.config.redis)


CHECKS: Mapping[str, Check] = {
    "configuration": setup.check,
    "sockets": sockets.check,
    "domains": domains.check,
    "postgres": _postgres,
    "redis": _redis,
}
"""In the order in which they are made."""
