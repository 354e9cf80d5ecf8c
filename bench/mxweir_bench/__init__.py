"""Measuring mxweir against the cheapest policy server there can be.

    tools.py     the C programs: load generator and no-op server
    servers.py   what is measured: the no-op server, mxweir on a configuration written for it
    load.py      one run of the load generator
    usage.py     CPU time and memory, from /proc
    compare.py   medians, and ratios within a round (pure)
    rates.py     requests a second and latency, server by server, round by round
    memory.py    memory with many live keys
    mail.py      CPU time a message through real Postfix
    report.py    tables, targets, the machine
    stages.py    where a request's time goes inside the process

Absolute rates belong to one machine and one minute. Every figure that is
judged is a ratio to the no-op server, measured in turns with it (A B C,
A B C, ...), so that both saw the same machine.
"""
