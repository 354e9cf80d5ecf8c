"""The macros that hold at a step of a session: what the mail server defined last, and has not outlived.

A definition belongs to the command it precedes, and goes when an earlier stage is
defined anew or its message ends (libmilter's engine.c, mi_clr_macros): a sender's
{auth_authen} must not be taken for the next sender's.
"""

from collections.abc import Mapping

_ORDER = b"CHMRTLNBEU"
"""The commands in the order of a session; letters of `codec`."""


class Defined:
    """Macros by the command they came with."""

    def __init__(self) -> None:
        self._stages: dict[int, Mapping[str, str]] = {}
        self._last = -1
        """The latest stage that has any."""
        self._all: Mapping[str, str] | None = None

    def define(self, command: bytes, macros: Mapping[str, str]) -> None:
        """Take the macros that come with a command; a letter that is none, nobody can ask for."""
        stage = _ORDER.find(command)
        if stage >= 0 and command:
            self._forget(stage)
            if macros:
                self._stages[stage], self._last, self._all = macros, stage, None

    def forget_message(self) -> None:
        """The message is done with; the client stays."""
        self._forget(_ORDER.index(b"M"))

    def all(self) -> Mapping[str, str]:
        """What holds now; of macros with one name, that of the later command."""
        if self._all is None:
            self._all = {name: value for _, macros in self._stages.items() for name, value in macros.items()}
        return self._all

    def _forget(self, first: int) -> None:
        # Before each header field, Postfix says that it has no macros: there is nothing to do then.
        if first <= self._last:
            self._stages = {stage: macros for stage, macros in self._stages.items() if stage < first}
            self._last = max(self._stages, default=-1)
            self._all = None
