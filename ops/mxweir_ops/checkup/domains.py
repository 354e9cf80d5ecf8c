"""The domains of this host: the file, and the tables that the daemons answer from."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mxweir.config import Config
from mxweir.domains.reader import FROZEN, HERE, POSTGRES, PROGRESS, DomainReader, TableReader
from mxweir.domains.record import FROM_FILE
from mxweir_ops.checkup import tables
from mxweir_ops.checkup.finding import BAD, GOOD, NOTE, Finding, Host
from mxweir_policyd.relaydomains.progress import Progress
from mxweir_policyd.relaydomains.sources.file import read_domains

_IN_DOUBT = (
    "the table was begun anew after damage, and what it lacks gets 450, until mxweir domains import of what"
    " was given by command, or mxweir domains verify --accept"
)


def check(host: Host) -> Iterator[Finding]:
    """Read the file and the tables; nothing is changed."""
    config = host.config
    with closing(DomainReader(config.state_dir)) as reader:
        if config.postgres is None or config.domains.file.exists():
            yield _file(config.domains.file)
        if config.postgres is None:
            yield _table(reader.here, config.state_dir / HERE)
        else:
            yield _table(reader.postgres, config.state_dir / POSTGRES)
            if reader.postgres.there:
                yield from _progress(reader.postgres, config, time.time())
        if (mark := config.state_dir / "domains.unsure").exists():
            yield Finding(BAD, str(mark), _IN_DOUBT)
        if config.domains.postfix_lmdb is not None:
            known = any(table.there and table.count() for table in (reader.here, reader.postgres))
            yield from tables.check(config.domains.postfix_lmdb, known)


def _file(path: Path) -> Finding:
    try:
        found = read_domains(path, FROM_FILE)
    except OSError as error:
        return Finding(NOTE, str(path), f"cannot be read: {error.strerror}")
    if found.bad:
        first = found.bad[0]
        what = f"{len(found.bad)} bad lines, the first is line {first.number}: {first.what}"
        return Finding(BAD, str(path), what)
    return Finding(GOOD, str(path), f"{len(found.records)} domains")


def _table(table: TableReader, path: Path) -> Finding:
    if not path.exists():
        return Finding(BAD, str(path), "is not there: the policy daemon has not made it yet")
    if table.failed or not table.there:
        return Finding(BAD, str(path), "cannot be read: damaged, not finished, or not for this user")
    if not table.count():
        return Finding(NOTE, str(path), "holds no domain")
    return Finding(GOOD, str(path), f"{table.count()} domains")


def _progress(replica: TableReader, config: Config, now: float) -> Iterator[Finding]:
    """How far the replica has come, by its own word."""
    subject = "the replica of PostgreSQL's table"
    progress = Progress.decode(replica.meta(PROGRESS))
    if replica.meta(FROZEN):
        yield Finding(NOTE, subject, "is frozen by hand: mxweir domains thaw")
    if not progress.filled:
        yield Finding(BAD, subject, "was never whole yet: the policy daemon fills it")
    elif now - progress.seen > config.domains.max_age:
        days = (now - progress.seen) / 86_400
        yield Finding(
            BAD, subject, f"was last up to date {days:.1f} days ago, longer than domains.max_age allows"
        )
    if progress.held:
        what = f"keeps {progress.held} domains that PostgreSQL has no more, because of domains.max_shrink"
        yield Finding(BAD, subject, f"{what}: if that is meant, mxweir domains verify --accept")
