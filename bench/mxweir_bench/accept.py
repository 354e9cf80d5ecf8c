"""A milter on pymilter that only accepts: what one in Python has cost so far at the least.

    python accept.py unix:/path | inet:PORT@127.0.0.1 [body]

It is told what any milter needs that scans (connection, envelope, header, body), and
looks at nothing. With "body" it asks for the body alone, which none could live on.
"""

import os
import sys

import Milter


class Body(Milter.Base):
    """A session that is told of the body alone."""

    def body(self, blk: bytes) -> int:
        """A piece of the body."""
        return Milter.CONTINUE

    def eom(self) -> int:
        """The end of a message."""
        return Milter.ACCEPT


class Everything(Body):
    """A session that is told everything."""

    def connect(self, hostname: str, family: int, hostaddr: object) -> int:
        """A client has connected."""
        return Milter.CONTINUE

    def hello(self, hostname: str) -> int:
        """It has greeted."""
        return Milter.CONTINUE

    def envfrom(self, f: str, *parameters: str) -> int:
        """A message begins."""
        return Milter.CONTINUE

    def envrcpt(self, to: str, *parameters: str) -> int:
        """A recipient of it."""
        return Milter.CONTINUE

    def header(self, field: str, value: str) -> int:
        """A header field."""
        return Milter.CONTINUE

    def eoh(self) -> int:
        """The end of the header."""
        return Milter.CONTINUE


if __name__ == "__main__":
    os.umask(0)  # Postfix is another user
    Milter.factory = Body if sys.argv[2:] == ["body"] else Everything
    Milter.set_flags(0)
    Milter.runmilter("accept", sys.argv[1])
