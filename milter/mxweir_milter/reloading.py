"""What a reload changes, and what only a restart does."""

from dataclasses import replace

from mxweir.config import Config

_FIXED = ("front", "listen", "socket_mode", "socket_group", "http", "max_sessions", "save_every")


def in_force(new: Config, running: Config) -> tuple[Config, list[str]]:
    """A new configuration with the values of the running one where a restart is needed, and these keys.

    Of `[milter]` and `[log]`, nobody looks again at what is fixed.
    """
    fixed = [f"milter.{key}" for key in _FIXED if getattr(new.milter, key) != getattr(running.milter, key)]
    fixed += [key for key in ("state_dir", "log", "redis") if getattr(new, key) != getattr(running, key)]
    return replace(new, state_dir=running.state_dir, redis=running.redis), fixed
