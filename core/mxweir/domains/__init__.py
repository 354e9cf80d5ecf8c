"""Relay domains as every daemon reads them: records, how names match, the tables on this host.

`record` and `match` have the rules and `names` what is a name (all pure);
`reader` looks domains up in the tables that the policy daemon keeps; `damage`
finds out whether such a file is whole.
"""
