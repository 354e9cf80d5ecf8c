"""Relay domains: is this recipient's domain ours, and where does its mail go?

`match` has the rules (pure): names, records, parents. `replica` keeps the table
in LMDB, for all processes of a host; `damage` finds out whether it is whole.
`sources` fill it.
"""
