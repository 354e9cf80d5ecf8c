"""The C programs, compiled for this machine in a throw-away directory."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from mxweir_ops.lab.process import LabError, program

_SOURCES = Path(__file__).resolve().parent.parent / "csrc"


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the compiled programs."""

    policyload: Path
    noop: Path
    fakespamd: Path


def build(directory: Path) -> Tools:
    """Compile the programs with `cc -O2`; LabError when there is no compiler or it fails."""
    return Tools(*(_compile(name, directory) for name in ("policyload", "noop", "fakespamd")))


def _compile(name: str, directory: Path) -> Path:
    compiler, out = program("cc", "gcc"), directory / name
    argv: list[str | Path] = [compiler, "-O2", "-Wall", "-o", out, _SOURCES / f"{name}.c", "-lm"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{name}.c does not compile: {done.stderr.strip()}")
    return out
