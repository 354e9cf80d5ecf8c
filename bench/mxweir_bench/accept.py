"""A milter on pymilter that only accepts: it has the body sent to it and looks at nothing.

    python accept.py unix:/path | inet:PORT@127.0.0.1

What a milter in Python has cost so far at the least. Nothing but the body is asked
for: connection, envelope and header, which any real milter needs, are left out.
"""

import os
import sys

import Milter


class Accept(Milter.Base):
    """One session."""

    def body(self, blk: bytes) -> int:
        """A piece of the body."""
        return Milter.CONTINUE

    def eom(self) -> int:
        """The end of a message."""
        return Milter.ACCEPT


if __name__ == "__main__":
    os.umask(0)  # Postfix is another user
    Milter.factory = Accept
    Milter.set_flags(0)
    Milter.runmilter("accept", sys.argv[1])
