"""Read a configuration file: all of it is right, or every mistake is told."""

import dataclasses
import re
import tomllib
from pathlib import Path

from mxweir.config import checks
from mxweir.config.schema import ConfigError, Lines, Problem, read_table
from mxweir.config.sections import Config

DEFAULT_PATH = Path("/etc/mxweir/mxweir.toml")

_TOML_LINE = re.compile(r"\(at line (\d+),")

_LARGEST = 16 * 2**20
"""Bytes; a list of blocked senders of that size belongs elsewhere."""


def load(path: Path) -> Config:
    """Read and check the file at `path`; raises ConfigError with every problem found."""
    try:
        with path.open("rb") as file:
            source = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(str(path), [Problem((), f"cannot be read: {error.strerror}")]) from None
    if len(source) > _LARGEST:
        raise ConfigError(str(path), [Problem((), "larger than 16 MiB")])
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        line = source[: error.start].count(b"\n") + 1
        raise ConfigError(str(path), [Problem((), "not valid UTF-8", line)]) from None
    return loads(text, str(path))


def loads(text: str, source: str = "configuration") -> Config:
    """Check a configuration given as text; `source` names it in messages."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # tomllib lets through what int() says of 5,000 digits, and what becomes of 5,000 brackets.
        where = _TOML_LINE.search(str(error))
        line = int(where[1]) if where else None
        raise ConfigError(source, [Problem((), f"not valid TOML: {error}", line)]) from None
    found: list[Problem] = []
    config = read_table(Config, document, found)
    if config is None:
        raise AssertionError("the whole configuration has no required key")
    # A table with a wrong key in it is not wrong a second time for lacking that key.
    told = {problem.place[:length] for problem in found for length in range(len(problem.place) + 1)}
    found += [problem for problem in checks.problems(config) if problem.place not in told]
    if found:
        lines = Lines(text)
        placed = [dataclasses.replace(problem, line=lines.of(problem.place)) for problem in found]
        raise ConfigError(source, sorted(placed, key=lambda problem: problem.line or 0))
    return dataclasses.replace(config, warnings=tuple(checks.warnings(config)))
