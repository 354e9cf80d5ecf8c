"""The configuration itself; its mistakes are told before any check."""

import re
import stat
from collections.abc import Iterator

from mxweir.config import Config
from mxweir_ops.checkup.finding import BAD, GOOD, NOTE, Finding, Host

_PASSWORD = re.compile(r"password\s*=|://[^/?#@]*:[^/?#@]+@", re.IGNORECASE)
"""A password in a connection string, in either form that libpq takes."""


def check(host: Host) -> Iterator[Finding]:
    """Warnings are notes; a file with a password that everybody can read is bad."""
    config, file = host
    yield Finding(GOOD, str(file), "no mistakes")
    for warning in config.warnings:
        yield Finding(NOTE, str(file), warning)
    if _has_password(config) and file.stat().st_mode & stat.S_IROTH:
        yield Finding(BAD, str(file), "it has a password and is readable for all: chmod o-r")


def _has_password(config: Config) -> bool:
    redis = config.redis and (config.redis.url.login.password or config.redis.url.sentinel_login.password)
    postgres = config.postgres and _PASSWORD.search(config.postgres.dsn)
    return bool(redis or postgres or any(engine.password for engine in config.milter.engine))
