"""What Redis's error replies mean. Pure."""

import re

from mxweir.redis.errors import Kind, RedisError

_KINDS: dict[str, Kind] = {
    "OOM": "full",
    "MISCONF": "full",
    "READONLY": "read-only",
    "NOREPLICAS": "read-only",
    "LOADING": "loading",
    "BUSY": "busy",
    "NOAUTH": "refused",
    "WRONGPASS": "refused",
    "NOPERM": "refused",
    "DENIED": "refused",
    "CLUSTERDOWN": "down",
    "MASTERDOWN": "down",
    "TRYAGAIN": "down",
    "MOVED": "down",
    "ASK": "down",
}
"""The first word of a reply (redis.io, "Redis serialization protocol": simple errors; server.c, `shared`)."""

# Redis 6 tells an error of a command within a script inside a text of its own:
# "ERR Error running script (call to f_...): @user_script:1: @user_script: 1: -OOM command not allowed ..."
_INSIDE = re.compile(r"^ERR .* -([A-Z]+) ")

_SHOWN = 200


def error_of(text: str) -> RedisError:
    """What the text of an error reply means."""
    code = text.partition(" ")[0]
    if inside := _INSIDE.match(text):
        code = inside[1]
    return RedisError(_KINDS.get(code, "error"), text[:_SHOWN])
