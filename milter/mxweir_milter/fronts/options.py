"""What a milter and a mail server agree on before all else: version, actions, steps, macros.

Each is a set of bits (libmilter's mfdef.h). The mail server says what it can do;
the milter answers with what of it shall be.
"""

from enum import IntEnum, IntFlag
from typing import NamedTuple

from mxweir_milter.fronts.codec import Negotiate, ProtocolError

OLDEST, NEWEST = 2, 6
"""The versions of the protocol that are spoken here; 1 was before Sendmail 8.12."""


class Action(IntFlag):
    """What a milter may do to a message (SMFIF_*)."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    DELETE_RECIPIENTS = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_PARAMETERS = 0x80
    SET_SYMBOL_LIST = 0x100


class Step(IntFlag):
    """Commands that are left out, or go without an answer, and what else both sides understand (SMFIP_*)."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    NO_REPLY_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RECIPIENTS = 0x800
    NO_REPLY_CONNECT = 0x1000
    NO_REPLY_HELO = 0x2000
    NO_REPLY_MAIL = 0x4000
    NO_REPLY_RCPT = 0x8000
    NO_REPLY_DATA = 0x10000
    NO_REPLY_UNKNOWN = 0x20000
    NO_REPLY_END_OF_HEADER = 0x40000
    NO_REPLY_BODY = 0x80000
    HEADER_LEADING_SPACE = 0x100000


class Stage(IntEnum):
    """Places at which a milter can ask for macros (SMFIM_*)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END = 5
    END_OF_HEADER = 6


_FIRST_ACTIONS = 0xF
_FIRST_STEPS = 0x3F
"""What no bits at all stand for: what the first version had (mfdef.h, SMFI_V1_ACTS and SMFI_V1_PROT)."""


class Options(NamedTuple):
    """What was agreed on."""

    version: int
    actions: Action
    steps: Step


def agree(offered: Negotiate, actions: Action, steps: Step) -> Options:
    """Of the wanted actions and steps those that the mail server can do; ProtocolError if it is too old."""
    if offered.version < OLDEST:
        raise ProtocolError(
            f"version {offered.version} of the protocol; {OLDEST} to {NEWEST} are spoken here"
        )
    return Options(
        min(offered.version, NEWEST),
        actions & (offered.actions or _FIRST_ACTIONS),
        steps & (offered.steps or _FIRST_STEPS),
    )
