"""The steps that led to an answer, as `mxweir explain` shows them."""

from typing import NamedTuple


class Step(NamedTuple):
    """One thing that was looked at.

    `outcome` is pass, allow, block, refuse, would refuse, not reached or not decided;
    `figure` how much is used of how much ("33/1000"); `note` says more in words.
    """

    check: str
    rule: str
    key: str
    outcome: str
    figure: str = ""
    note: str = ""
