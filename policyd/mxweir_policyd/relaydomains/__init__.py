"""Relay domains: is this recipient's domain ours, and where does its mail go?

`match` has the rules (pure): names, records, parents. `replica` keeps the table
in LMDB, for all processes of a host. `sources` fill it.
"""
