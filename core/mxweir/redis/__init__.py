"""Redis and Valkey for daemons: one server, a master behind Sentinel, or a Cluster, behind one face.

    url.py           where they are
    servers.py       what the rest of mxweir asks them by
    client.py        what the topologies have in common, and one server
    sentinel.py, cluster.py    which master there is, or which has a key
    master.py        one master: a connection that is kept up, a breaker, calls that go out again
    wire.py          one connection: calls in order, each with its time
    dial.py          how a connection is made: resolved, opened, logged in
    subscription.py  one channel, listened to
    call.py, script.py, slots.py, replies.py, errors.py, standing.py    what these speak of

hiredis is imported here and nowhere else, and only once [redis] is configured.
"""
