"""Certificates and keys that the configuration names: can they be read, and used? Told before a restart."""

from collections.abc import Iterator
from pathlib import Path

from mxweir.config import Config, Problem
from mxweir.config.schema import Place
from mxweir.redis.dial import tls_of
from mxweir.service import SettingError


def problems(config: Config) -> Iterator[Problem]:
    """Every file that whoever asks cannot read; where there is none, what is wrong with those for Redis."""
    unreadable = [
        Problem(place, f"{path} cannot be read: {why}")
        for place, path in _named(config)
        if (why := _unreadable(path))
    ]
    yield from unreadable
    if config.redis is not None and not unreadable:
        try:
            tls_of(config.redis)
        except SettingError as error:
            yield Problem((), str(error))


def _named(config: Config) -> Iterator[tuple[Place, Path]]:
    if config.redis is not None:
        for name in ("ca", "cert", "key"):
            if (path := getattr(config.redis, name)) is not None:
                yield ("redis", name), path
    for index, engine in enumerate(config.milter.engine):
        if engine.ca is not None:
            yield ("milter", "engine", index, "ca"), engine.ca


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""
