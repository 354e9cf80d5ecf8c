"""A script that Redis keeps by its hash."""

import hashlib


class Script:
    """Lua text, and the name that Redis has for it."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        """What EVAL takes."""
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        """What EVALSHA takes (redis.io, "EVALSHA": the SHA1 digest in hexadecimal digits)."""
