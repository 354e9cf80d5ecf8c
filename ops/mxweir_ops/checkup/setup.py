"""The configuration itself; its mistakes are told before any check."""

import stat
from collections.abc import Iterator

from mxweir_ops.checkup.finding import BAD, GOOD, NOTE, Finding, Host


def check(host: Host) -> Iterator[Finding]:
    """Warnings are notes; a file with secrets that everybody can read is bad."""
    config, file = host
    yield Finding(GOOD, str(file), "no mistakes")
    for warning in config.warnings:
        yield Finding(NOTE, str(file), warning)
    engine = any(engine.password for engine in config.milter.engine)
    secret = engine or config.postgres is not None or config.redis is not None
    if secret and file.stat().st_mode & stat.S_IROTH:
        yield Finding(BAD, str(file), "it may hold passwords and is readable for all: chmod o-r")
