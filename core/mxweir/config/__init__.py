"""The configuration: one TOML file, read whole and checked whole.

`sections` declares every key with its default, `readers` turns one value into
what the program uses, `schema` walks a document by those declarations and
collects every mistake, `checks` looks at what only several keys together can
get wrong, `load` does all of it for a file.
"""

from mxweir.config.load import DEFAULT_PATH, load, loads
from mxweir.config.schema import ConfigError, Problem
from mxweir.config.sections import (
    AccessEntry,
    Breaker,
    Config,
    Domains,
    Engine,
    Keys,
    LimitRule,
    Log,
    Milter,
    MilterPolicy,
    Policyd,
    Redis,
)

__all__ = [
    "DEFAULT_PATH",
    "AccessEntry",
    "Breaker",
    "Config",
    "ConfigError",
    "Domains",
    "Engine",
    "Keys",
    "LimitRule",
    "Log",
    "Milter",
    "MilterPolicy",
    "Policyd",
    "Problem",
    "Redis",
    "load",
    "loads",
]
