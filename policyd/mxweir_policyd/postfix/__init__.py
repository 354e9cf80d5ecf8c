"""Postfix's own tables of our domains, so that Postfix knows them when every process of ours is dead.

`rows` says what stands in them (pure); `postmap` has Postfix's own tool read and
change them; `keeping` makes them agree with our tables; `keeper` is the process
that does so for as long as the policy daemon runs.
"""
