"""What a question to PostgreSQL costs: by the indexed hash, and as an unindexed column has it.

A private PostgreSQL on the disk, with a table that grows: each size is imported from
a file by `mxweir domains import`, so that the import is measured as well. Beside it
stands what once brought a whole company's mail to a stop: the same names in a
varchar(4096) without an index. There the planner has its usual settings, workers
included. Half of the names that are asked for are there. Times are of whole
questions, from the client's side, over a unix socket.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from mxweir.config.sections import Postgres
from mxweir.domains.match import digest
from mxweir.domains.reader import POSTGRES
from mxweir_bench.report import Part, Target, at_most, table
from mxweir_ops.lab.postgresql import PostgreSQL
from mxweir_policyd.relaydomains.queries import LAST, queries
from mxweir_policyd.relaydomains.sources.postgres import Source, connect

SIZES = (10_000, 1_000_000, 10_000_000)
_WANTED = 500.0
_FILLED, _FILL_MEMORY = 120.0, 200.0
_BY_HASH = 2_000
_BY_SCAN = 7
_DISK = Path("/var/tmp")
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "work_mem": "64MB"}


@dataclass(frozen=True, slots=True)
class Row:
    """Figures at one size: seconds a question, seconds for the whole table, MiB."""

    domains: int
    by_hash: float
    by_hash_p99: float
    by_scan: float
    imported: float
    import_memory: float
    filled: float
    fill_memory: float
    replica: float
    compared: float
    disk: float

    @property
    def ratio(self) -> float:
        """How many questions by hash one scan is worth."""
        return self.by_scan / self.by_hash


def part(sizes: Sequence[int] = SIZES) -> Part:
    """Each size in turn, in one growing table. LabError when PostgreSQL does not start."""
    with _home() as directory, PostgreSQL(directory, _SETTINGS) as server:
        dsn = server.dsn(server.new_database())
        config = directory / "mxweir.toml"
        config.write_text(f'state_dir = "{directory}"\n[postgres]\ndsn = "{dsn}"\nquery_timeout = "10m"\n')
        _mxweir(config, "init")
        rows = [measure(dsn, config, directory / "domains", size) for size in sizes]
    shown = table(
        (
            "domains",
            "by hash",
            "p99",
            "unindexed",
            "ratio",
            "import",
            "its memory",
            "fill",
            "its memory",
            "replica",
            "compare",
            "disk",
        ),
        map(_shown, rows),
    )
    last = rows[-1]
    text = f"""\
## PostgreSQL

A question by the indexed hash beside one by an unindexed varchar(4096) (medians of {_BY_HASH} and
{_BY_SCAN}); `mxweir domains import` of a file; a host's first fill, and its replica on the disk; the
checksums of a full comparison; the table with its indexes on the disk.

{shown}"""
    what = f"a question at {last.domains:,} domains, unindexed : by hash"
    targets = [Target(what, f"at least {_WANTED:.0f}", f"{last.ratio:.0f}", last.ratio >= _WANTED)]
    targets.append(at_most(f"a first fill of {last.domains:,} domains", last.filled, _FILLED, "s"))
    targets.append(at_most(f"its memory, {last.domains:,} domains", last.fill_memory, _FILL_MEMORY, "MiB"))
    return Part([asdict(row) | {"ratio": row.ratio} for row in rows], text, targets)


def measure(dsn: str, config: Path, file: Path, size: int) -> Row:
    """Grow the table to this size, and ask."""
    with file.open("w") as stream:
        stream.writelines(f"{name(number)}\n" for number in range(size))
    imported, memory = _import(config, file)
    settings = Postgres(dsn=dsn, query_timeout=600.0)
    with connect(settings) as connection, psycopg.connect(dsn, autocommit=True) as plain:
        plain.execute("VACUUM ANALYZE mxweir.domains")
        plain.execute("DROP TABLE IF EXISTS legacy")
        plain.execute("CREATE TABLE legacy AS SELECT name::varchar(4096) AS domain FROM mxweir.domains")
        plain.execute("VACUUM ANALYZE legacy")
        find = queries().find.text
        by_hash = _times(lambda asked: connection.execute(find, {"hashes": [digest(asked)]}), _BY_HASH, size)
        scan = "SELECT domain FROM legacy WHERE domain = %s"
        by_scan = _times(lambda asked: plain.execute(scan, [asked]), _BY_SCAN, size)
        ((disk,),) = plain.execute("SELECT pg_total_relation_size('mxweir.domains')").fetchall()
    filled, fill_memory, replica = _fill(config)
    source = Source(settings)
    compared = _seconds(lambda: _compare(source))
    source.close()
    p99 = statistics.quantiles(by_hash, n=100)[98]
    median = statistics.median
    return Row(
        domains=size,
        by_hash=median(by_hash),
        by_hash_p99=p99,
        by_scan=median(by_scan),
        imported=imported,
        import_memory=memory,
        filled=filled,
        fill_memory=fill_memory,
        replica=replica,
        compared=compared,
        disk=disk / 2**20,
    )


def name(number: int) -> str:
    """A domain of usual length."""
    return f"mail{number}.customer-{number % 9973}.example"


def _times(ask: Callable[[str], psycopg.Cursor[Any]], questions: int, size: int) -> list[float]:
    """Seconds for each question; the first ones, which load what is needed, do not count."""
    chance = random.Random(size)  # the same questions each time
    asked = [name(chance.randrange(2 * size)) for _ in range(questions + 2)]
    return [_seconds(partial(_answered, ask, one)) for one in asked][2:]


def _answered(ask: Callable[[str], psycopg.Cursor[Any]], asked: str) -> None:
    ask(asked).fetchall()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _compare(source: Source) -> None:
    after = b""
    while after != LAST:
        after = source.digest(after).end


def _import(config: Path, file: Path) -> tuple[float, float]:
    """Seconds, and the command's largest memory in MiB."""
    code = "import resource, sys; from mxweir_ops.cli import main; status = main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    argv = [sys.executable, "-c", code, "domains", "import", str(file), "--config", str(config), "--force"]
    begun = time.perf_counter()
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return time.perf_counter() - begun, int(done.stdout.split()[-1]) / 1024


def _fill(config: Path) -> tuple[float, float, float]:
    """Seconds; MiB of the process at its largest, and of a replica that did not exist before."""
    (config.parent / POSTGRES).unlink(missing_ok=True)
    argv = [sys.executable, "-m", "mxweir_bench.filling", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
    seconds, memory, replica = json.loads(done.stdout)
    return seconds, memory, replica


def _mxweir(config: Path, *words: str) -> None:
    argv = [sys.executable, "-m", "mxweir_ops", "domains", *words, "--config", str(config)]
    subprocess.run(argv, check=True, capture_output=True)


@contextmanager
def _home() -> Iterator[Path]:
    """On the disk, unlike the rest: ten million domains in three forms do not belong into memory."""
    with tempfile.TemporaryDirectory(prefix="mxweir-", dir=_DISK) as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


def _shown(row: Row) -> tuple[str, ...]:
    return (
        f"{row.domains:,}",
        f"{row.by_hash * 1e3:.3f} ms",
        f"{row.by_hash_p99 * 1e3:.3f} ms",
        f"{row.by_scan * 1e3:.1f} ms",
        f"{row.ratio:,.0f}",
        f"{row.imported:.1f} s",
        f"{row.import_memory:.0f} MiB",
        f"{row.filled:.1f} s",
        f"{row.fill_memory:.0f} MiB",
        f"{row.replica:.0f} MiB",
        f"{row.compared:.1f} s",
        f"{row.disk:.0f} MiB",
    )
