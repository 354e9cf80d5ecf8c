"""The access entries that operators make by command, on this host or, by Redis, on all of them."""
