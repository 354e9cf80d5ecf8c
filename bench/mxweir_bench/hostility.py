"""Hostile engines in a process of their own, each turning to another manner every now and then, by lot.

    python hostility.py SEED spamd=unix:/path rspamd=inet:127.0.0.1:PORT ...

A process, so that an engine that sends without end does not take the time of who
measures. On SIGTERM it prints what happened, as JSON: for each engine its
connections, its right answers, and how often it turned to each manner.
"""

import json
import random
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from threading import Event

from mxweir.endpoint import parse
from mxweir_ops.lab.hostile import HostileEngine

_LEAST, _MOST = 0.2, 2.0
"""Seconds between two turns of an engine."""

_PATIENCE = 5.0
"""Seconds that a connection is held in silence; longer than any deadline that is measured."""


def main() -> None:
    """Run until SIGTERM."""
    lot, stopped = random.Random(sys.argv[1]), Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    turns: list[Counter[str]] = []
    with ExitStack() as stack:
        engines = []
        for word in sys.argv[2:]:
            protocol, _, address = word.partition("=")
            engines.append(stack.enter_context(HostileEngine(protocol, parse(address), patience=_PATIENCE)))
            turns.append(Counter())
        while not stopped.wait(lot.uniform(_LEAST, _MOST) / len(engines)):
            which = lot.randrange(len(engines))
            turns[which][engines[which].switch(lot)] += 1
        counts = [
            {"connections": engine.connections, "answers": engine.answers, "turns": turned}
            for engine, turned in zip(engines, turns, strict=True)
        ]
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
