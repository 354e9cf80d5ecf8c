"""What a reader of the figures needs beside them: tables, targets, and the machine they belong to."""

import os
import platform
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DISTURBED = 0.1


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that must be true of the figures, and whether it is."""

    what: str
    wanted: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the benchmark: figures for JSON, Markdown for a reader, and what was to be reached."""

    figures: Any
    text: str
    targets: Sequence[Target] = ()


def at_least(what: str, value: float, wanted: float) -> Target:
    """A share that must not be smaller."""
    return Target(what, f"at least {wanted:.0%}", f"{value:.1%}", value >= wanted)


def at_most(what: str, value: float, wanted: float, unit: str) -> Target:
    """A figure in `unit` that must not be larger."""
    return Target(what, f"at most {wanted:g} {unit}", f"{value:.2f} {unit}", value <= wanted)


def disturbances(others_cpu: Sequence[float]) -> str:
    """A sentence on how undisturbed the runs were: shares of one core that other programs took."""
    disturbed = sum(share > _DISTURBED for share in others_cpu)
    return (
        f"In {disturbed} of {len(others_cpu)} runs other programs took more than {_DISTURBED:.0%} of a core."
    )


def targets_table(targets: Iterable[Target]) -> str:
    """The targets as a table."""
    rows = ((t.what, t.wanted, t.measured, "met" if t.met else "missed") for t in targets)
    return table(("target", "wanted", "measured", ""), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for a reader of the plain text, too."""
    cells = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """What the absolute figures belong to."""
    return {
        "cores": f"{os.cpu_count()} × {_cpu_model()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {_python_build()}",
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")


def _python_build() -> str:
    """Who built Python, and how: an unoptimised build is slower by a third."""
    if sys.base_prefix == "/usr":
        return "the distribution's build"
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimised = "--enable-optimizations" in arguments
    return f"a build of its own {'with' if optimised else 'without'} --enable-optimizations"
