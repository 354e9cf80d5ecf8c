"""Relay domains in the policy daemon: the tables on this host, and where they come from.

The rules are in `mxweir.domains`: names, records, parents. `replica` keeps the
table of what is given on this host in LMDB, for all its processes; `sources`
fill it.
"""
