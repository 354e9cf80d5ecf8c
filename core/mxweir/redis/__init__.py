"""Redis and Valkey for daemons: one server, Sentinel or Cluster, behind one face.

`url` says where they are, `servers` is what the rest of mxweir uses, `wire` has one
connection, `master` keeps one up, and `single`, `sentinel` and `cluster` know which
master a key belongs to. hiredis is imported here and nowhere else, and only once
[redis] is configured.
"""
