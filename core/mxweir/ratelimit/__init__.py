"""Rate limits: how they are written, what they count, who may still pass.

`rate` reads "600/minute". `arithmetic` is the theory and the pure sums.
`limits` says which key a limit counts, what it costs and in which order limits
are asked. `memory` keeps the counters of one process, `snapshot` keeps them
across a restart.
"""
