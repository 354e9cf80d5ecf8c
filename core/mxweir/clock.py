"""Time, as the deciding code is given it.

Decisions take `now` as an argument. The daemons read it from here, once a
request; `mxweir.testing` has a clock that a test sets by hand.
"""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, never running backwards within a process."""


def system_clock() -> Clock:
    """A clock that starts at the wall's time and goes on with the monotonic one.

    A limit that counts by the wall alone would refuse mail for an hour when an
    administrator sets the clock back by one. Anchored this way, a jump is not
    seen until the next restart, and counters kept in a file still mean the same
    moment after it.
    """
    anchor = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: anchor + monotonic()
