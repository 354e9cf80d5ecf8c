"""What a reload changes, and what only a restart does."""

from dataclasses import replace

from mxweir.config import Config

_FIXED = ("listen", "maps", "socket_mode", "socket_group", "http", "workers", "max_connections", "save_every")


def in_force(new: Config, running: Config) -> tuple[Config, list[str]]:
    """A new configuration with the values of the running one where a restart is needed, and these keys."""
    fixed = [f"policyd.{key}" for key in _FIXED if getattr(new.policyd, key) != getattr(running.policyd, key)]
    fixed += [key for key in ("state_dir", "log", "redis") if getattr(new, key) != getattr(running, key)]
    kept = {key: getattr(running.policyd, key) for key in _FIXED}
    policyd = replace(new.policyd, **kept)
    postgres = new.postgres
    if (new.postgres is None) != (running.postgres is None):
        fixed.append("postgres")
        postgres = running.postgres
    return (
        replace(
            new,
            policyd=policyd,
            state_dir=running.state_dir,
            log=running.log,
            redis=running.redis,
            postgres=postgres,
        ),
        fixed,
    )
