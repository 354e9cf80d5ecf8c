"""Memory of the worker with many live keys."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mxweir_bench import load, servers, usage
from mxweir_bench.report import Part, at_most, table
from mxweir_bench.servers import Server
from mxweir_bench.tools import Tools

_ORGS, _DOMAINS, _NETWORKS = 997, 1009, 65536
"""Distinct sender domains, recipient domains and client /24 networks of the load generator."""

_LOAD_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """Memory in MiB at one moment, and the keys that the five limits then hold."""

    moment: str
    live_keys: int
    memory: usage.Memory


def part(tools: Tools, directory: Path, *, unix: bool) -> Part:
    """A fresh mxweir, filled with keys; it saves its counters all the time, since that takes memory, too."""
    with servers.mxweir("mxweir with keys", directory, save_every="1s", unix=unix) as server:
        rows = measure(tools.policyload, server)
    text = f"""\
## Memory

One worker; each moment comes after every key was seen once and {_LOAD_SECONDS} s of random load on
all of them, with the counters saved to disk meanwhile.

{markdown(rows)}"""
    peak = at_most("peak memory with 100,000 live keys", rows[1].memory.peak, 80, "MiB")
    return Part([asdict(row) for row in rows], text, [peak])


def measure(policyload: Path, server: Server) -> list[Row]:
    """Three moments of one daemon: started; 100,000 live keys; as many senders and as many recipients.

    Each comes after a sweep that sees every key once and some seconds of random
    load on them, so that caches are full and the counters have been saved.
    """
    rows = [Row("just started", 0, usage.memory(server.pids()))]
    for moment, people in (
        ("100,000 live keys in all", 32_665),
        ("100,000 senders, as many recipients", 100_000),
    ):
        _fill(policyload, server, people)
        rows.append(Row(moment, live_keys(people), usage.memory(server.pids())))
    return rows


def live_keys(people: int) -> int:
    """Keys of the five limits once that many senders, recipients and clients have been seen."""
    return 2 * people + min(people, _NETWORKS) + min(people, _ORGS) + min(people, _DOMAINS)


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""
    return table(
        ("moment", "live keys", "resident MiB", "proportional (PSS) MiB", "peak so far MiB"),
        (
            (
                row.moment,
                f"{row.live_keys:,}",
                f"{row.memory.rss:.0f}",
                f"{row.memory.pss:.0f}",
                f"{row.memory.peak:.0f}",
            )
            for row in rows
        ),
    )


def _fill(policyload: Path, server: Server, people: int) -> None:
    keys = ["--conns", "64", "--keys", str(people)]
    load.run(policyload, server, [*keys, "--sweep", "--requests", str(people)])
    load.run(policyload, server, [*keys, "--independent", "--seconds", str(_LOAD_SECONDS)])
