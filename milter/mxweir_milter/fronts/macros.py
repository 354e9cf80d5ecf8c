"""The macros that hold at a step of a session: what the mail server defined last, and has not outlived.

A definition belongs to the command it precedes, and goes when an earlier stage is
defined anew or its message ends (libmilter's engine.c, mi_clr_macros): a sender's
{auth_authen} must not be taken for the next sender's.
"""

from collections.abc import Mapping

_STAGES = {bytes([letter]): stage for stage, letter in enumerate(b"CHMRTLNBEU")}
"""The commands in the order of a session; letters of `codec`."""


class Defined:
    """What holds now, on top of what held at each earlier stage."""

    def __init__(self) -> None:
        self._stages: list[tuple[int, Mapping[str, str]]] = [(-1, {})]

    def define(self, command: bytes, macros: Mapping[str, str]) -> None:
        """Take the macros that come with a command; a letter that is none, nobody can ask for."""
        stage = _STAGES.get(command)
        if stage is None:
            return
        if self._stages[-1][0] >= stage:
            self._forget(stage)
        if macros:
            self._stages.append((stage, {**self._stages[-1][1], **macros}))

    def forget_message(self) -> None:
        """The message is done with; the client stays."""
        self._forget(_STAGES[b"M"])

    def all(self) -> Mapping[str, str]:
        """What holds now; of macros with one name, that of the later command."""
        return self._stages[-1][1]

    def _forget(self, first: int) -> None:
        while self._stages[-1][0] >= first:
            self._stages.pop()
