"""Measuring mxweir against the cheapest policy server there can be, and against other milters.

    tools.py      the C programs: load generator, no-op server, a scanner that answers at once
    usage.py      CPU time, memory, threads and sockets, from /proc
    compare.py    medians and means, and ratios within a round (pure)
    report.py     tables, targets, the machine

    servers.py    policy servers: the no-op server, mxweir on a configuration written for it
    load.py       one run of the load generator
    rates.py      requests a second and latency, server by server, round by round
    memory.py     memory with many live keys
    mail.py       CPU time a message through real Postfix (asking.py: one that asks by port)
    stages.py     where a request's time goes inside the process

    rediscost.py  what questions cost Redis (rediscalls.py: asked without mxweir)
    shared.py     requests a second with limits in Redis
    peers.py      beside postfwd and policyd-rate-limit
    openloop.py   latency at a fixed arrival rate
    flood.py      what a flood from one sender costs Redis
    fleet.py      what many hosts cost one Redis

    milters.py    milters: mxweir's, one on pymilter that only accepts (accept.py), spamass-milter
    delivery.py   mail through real Postfix, set-up by set-up, round by round
    milter.py     messages a second through real Postfix
    mta.py        plays Postfix towards a milter
    burst.py      200 simultaneous ends of message, silent engine
    breakers.py   a message's time while nobody is asked
    large.py      memory with many large messages
    soak.py       minutes with engines that misbehave at random (hostility.py)

Absolute rates belong to one machine and one minute. Every figure that is
judged is a ratio to something else, measured in turns with it (A B C,
A B C, ...), so that both saw the same machine; but for those that promise a time.
"""
