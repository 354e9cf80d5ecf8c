"""Why a call to Redis has no answer."""

from typing import Literal

Kind = Literal[
    "timeout",
    "connection",
    "unavailable",
    "full",
    "read-only",
    "loading",
    "busy",
    "refused",
    "down",
    "nonsense",
    "error",
]
"""Closed, because it is a metric's label.

    timeout      no answer in time; it may have been executed, or may still be
    connection   the connection was lost while the answer was awaited; likewise
    unavailable  not sent: no connection, the breaker is open, or too much is under way
    full         Redis refuses to write: maxmemory is reached, or it cannot save
    read-only    the server is a replica
    loading      the server reads its data set at a start
    busy         another script runs for too long
    refused      wrong password, missing permission
    down         the Cluster or the replica says that it cannot serve this key now
    nonsense     it does not speak Redis's protocol
    error        any other error; only this one is about the call, and not about the server
"""


class RedisError(Exception):
    """A call to Redis had no answer; `detail` says more in one line, and never a secret."""

    def __init__(self, kind: Kind, detail: str = "") -> None:
        self.kind: Kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}" if detail else kind)
