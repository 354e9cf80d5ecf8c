"""Fronts: what speaks the milter protocol with Postfix, and drives a `Session` by it.

A front is given two functions, one that makes sessions and one that scans, and
offers `open`, `start`, `stop` and a few figures. Which one runs is the
configuration's business; nothing outside this folder knows how it works.
"""
