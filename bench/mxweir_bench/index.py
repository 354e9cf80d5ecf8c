"""What a lookup in the table on this host costs as it grows, and what making it takes: time, memory, disk.

Each size is imported from a file into a table of its own on the disk, and
Postfix's own tables are made of it. Then all sizes are asked by turns, in the
same run: small, large, small, large.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from mxweir_bench.lookups import name
from mxweir_bench.report import Part, Target, at_least, at_most, table

SIZES = (10_000, 1_000_000, 10_000_000)
_DISK = Path("/var/tmp")


@dataclass(frozen=True, slots=True)
class Made:
    """What it took to make the tables: seconds, MiB."""

    imported: float
    import_memory: float
    disk: float
    exported: float
    compared: float
    postfix_disk: float


@dataclass(frozen=True, slots=True)
class Row:
    """One size: microseconds a lookup (medians of the rounds), MiB of private memory, and how it was made."""

    domains: int
    bare: float
    index: float
    whole: float
    memory: float
    made: Made


def part(sizes: Sequence[int] = SIZES, rounds: int = 5) -> Part:
    """Make all tables, then ask them by turns."""
    with tempfile.TemporaryDirectory(dir=_DISK) as scratch, ExitStack() as stack:
        places = [Path(scratch) / str(size) for size in sizes]
        made = [make(place, size) for place, size in zip(places, sizes, strict=True)]
        askers = [stack.enter_context(_asker(place, size)) for place, size in zip(places, sizes, strict=True)]
        told = [[_ask(asker) for asker in askers] for _ in range(rounds + 1)][1:]  # the first one warms up
    rows = [Row(size, **_medians([each[i] for each in told]), made=made[i]) for i, size in enumerate(sizes)]
    text = f"""\
## Relay domains on this host

Microseconds of processor time a lookup, in one process, half of the names known, none asked twice:
py-lmdb's get by the SHA-256, a transaction each; the index; and all that the daemon does from the
letters that the client typed (medians of {rounds} rounds, sizes by turns).

{_lookups(rows)}

Making it: `mxweir domains import` of a file, then `export --postfix-lmdb` with nothing there, and
again with nothing to change.

{_making(rows)}"""
    return Part([asdict(row) for row in rows], text, _targets(rows))


def make(place: Path, size: int) -> Made:
    """A table of that many domains, and Postfix's."""
    place.mkdir()
    domains, config, tables = place / "domains", place / "mxweir.toml", place / "postfix"
    with domains.open("w") as file:
        file.writelines(f"{name(number)}\n" for number in range(size))
    config.write_text(f'state_dir = "{place}"\n')
    imported, memory = _run(config, "import", domains)
    exported, _ = _run(config, "export", "--postfix-lmdb", tables)
    compared, _ = _run(config, "export", "--postfix-lmdb", tables)
    domains.unlink()
    disk = _mib([place / "domains.lmdb"])
    return Made(imported, memory, disk, exported, compared, _mib(tables.glob("*.lmdb")))


def _targets(rows: Sequence[Row]) -> list[Target]:
    small, large = rows[0], rows[-1]
    sizes = f"{large.domains:,} domains : {small.domains:,}"
    return [
        at_most(f"a lookup in the index, {sizes}", large.index / small.index, 1.3, "times"),
        at_most(f"all that the daemon does with a domain, {sizes}", large.whole / small.whole, 1.3, "times"),
        at_least(
            f"lookups in the index : bare gets, {large.domains:,} domains", large.bare / large.index, 0.5
        ),
        at_most(f"private memory of a process, {large.domains:,} domains", large.memory, 50, "MiB"),
    ]


def _lookups(rows: Sequence[Row]) -> str:
    head = ("domains", "bare get", "index", "all", "private memory MiB")
    return table(
        head,
        (
            (
                f"{row.domains:,}",
                f"{row.bare:.2f}",
                f"{row.index:.2f}",
                f"{row.whole:.2f}",
                f"{row.memory:.1f}",
            )
            for row in rows
        ),
    )


def _making(rows: Sequence[Row]) -> str:
    head = (
        "domains",
        "import s",
        "its memory MiB",
        "table MiB",
        "Postfix's s",
        "compared s",
        "Postfix's MiB",
    )
    shown = []
    for row in rows:
        figures = asdict(row.made).values()
        shown.append((f"{row.domains:,}", *(f"{figure:,.1f}" for figure in figures)))
    return table(head, shown)


def _run(config: Path, *words: str | Path) -> tuple[float, float]:
    """Seconds that a command took, and MiB at its peak; CalledProcessError when it fails."""
    argv = [sys.executable, "-P", "-m", "mxweir_ops", "domains", *map(str, words), "--config", str(config)]
    started = perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return perf_counter() - started, used.ru_maxrss / 1024


@contextmanager
def _asker(place: Path, size: int) -> Iterator["subprocess.Popen[str]"]:
    argv = [sys.executable, "-m", "mxweir_bench.lookups", str(place), str(size)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def _ask(asker: "subprocess.Popen[str]") -> dict[str, float]:
    if asker.stdin is None or asker.stdout is None:
        raise ValueError("no pipe to the process that asks")
    asker.stdin.write("\n")
    asker.stdin.flush()
    answer: dict[str, float] = json.loads(asker.stdout.readline())
    return answer


def _medians(told: Sequence[dict[str, float]]) -> dict[str, float]:
    return {figure: statistics.median(each[figure] for each in told) for figure in told[0]}


def _mib(files: "Iterator[Path] | list[Path]") -> float:
    return sum(file.stat().st_size for file in files) / 2**20
