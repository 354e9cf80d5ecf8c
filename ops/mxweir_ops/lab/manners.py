"""The ways in which a hostile engine treats one connection."""

import asyncio
import math
import re
import select
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mxweir_ops.lab.answers import Protocol

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that is a reset (Linux socket(7))."""

_LOOK_SECONDS = 0.1
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Manner(StrEnum):
    """How an engine treats a connection; from SILENT on, after it has read the whole request."""

    NOT_ACCEPTING = "not accepting"  # the backlog is full: TCP's connect hangs, a unix socket's fails
    DEAF = "deaf"  # accepts and reads nothing, as a stopped process does
    CLOSING = "closing"  # closes at once
    RESETTING = "resetting"  # resets the connection after the request's first byte
    SILENT = "silent"  # says nothing
    DRIP = "drip"  # a right answer, one byte a second
    ENDLESS = "endless"  # an answer without an end, as fast as it is read
    GARBAGE = "garbage"  # random bytes
    CUT = "cut"  # closes in the middle of the answer
    TOO_SHORT = "too short"  # announces fewer bytes than it sends
    TOO_LONG = "too long"  # announces more bytes than it sends, and stays
    NO_SCORE = "no score"
    NAN = "nan"
    REFUSING = "refusing"  # the protocol's own "not now"
    SLOW = "slow"  # a right answer after `seconds`
    PROMPT = "prompt"  # a right answer at once


@dataclass(slots=True)
class Settings:
    """What the manners need to know; `seconds` are SLOW's.

    `patience`: after so many seconds a connection on which nothing is said is
    closed, because the other side's end cannot always be noticed once it has
    closed its half.
    """

    protocol: Protocol
    score: float
    seconds: float
    patience: float

    def right(self, length_error: int = 0) -> bytes:
        """A right answer, but for the error in the announced length, in bytes."""
        return self.protocol.answer(f"{self.score:g}", length_error)


async def read_request(peer: socket.socket) -> bytes | None:
    """The message, read to the end of the announced length; None when the other side ends before."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (piece := await _receive(peer)):
            return None
        request += piece
    head, _, begin = request.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    pieces, left = [begin], int(length[1]) - len(begin) if length else 0
    while left > 0 and (piece := await _receive(peer)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces) if left <= 0 else None


async def treat(peer: socket.socket, manner: Manner, settings: Settings) -> None:
    """Do to a connection what the manner says, and return when it is to be closed. Raises OSError."""
    match manner:
        case Manner.DEAF | Manner.SILENT:
            await _hold(peer, settings.patience)
        case Manner.RESETTING:
            await asyncio.get_running_loop().sock_recv(peer, 1)
            # On a unix socket it is the unread rest of the request that makes it a reset.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        case Manner.DRIP:
            await _drip(peer, settings.right())
        case Manner.ENDLESS:
            await _endless(peer, settings.protocol)
        case Manner.TOO_LONG:
            await _send(peer, settings.right(1000))
            await _hold(peer, settings.patience)
        case Manner.SLOW:
            await asyncio.sleep(settings.seconds)
            await _send(peer, settings.right())
        case _:
            await _send(peer, _words(manner, settings))


def _words(manner: Manner, settings: Settings) -> bytes:
    """What those say that say it at once and close; CLOSING says nothing."""
    right = settings.right()
    return {
        Manner.GARBAGE: bytes(range(256)) * 16,
        Manner.CUT: right[: len(right) // 2],
        Manner.TOO_SHORT: settings.right(-5),
        Manner.NO_SCORE: settings.protocol.answer(None, 0),
        Manner.NAN: settings.protocol.answer("nan", 0),
        Manner.REFUSING: settings.protocol.refusal,
        Manner.PROMPT: right,
    }.get(manner, b"")


async def _hold(peer: socket.socket, patience: float) -> None:
    """Say nothing until the other side has gone; that can only be looked for."""
    gone = select.poll()
    gone.register(peer, 0)  # tells of POLLHUP and POLLERR all the same
    for _ in range(math.ceil(patience / _LOOK_SECONDS)):
        if gone.poll(0):
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _drip(peer: socket.socket, answer: bytes) -> None:
    for byte in answer:
        await _send(peer, bytes([byte]))
        await asyncio.sleep(1.0)


async def _endless(peer: socket.socket, protocol: Protocol) -> None:
    await _send(peer, protocol.endless)
    while True:
        await _send(peer, protocol.more)
        await asyncio.sleep(0)  # a reader that keeps up must not keep the other connections waiting


async def _receive(peer: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(peer, 1 << 16)


async def _send(peer: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(peer, data)


UNREAD: Final = frozenset({Manner.DEAF, Manner.CLOSING, Manner.RESETTING})
"""The manners that do not wait for the request."""

RIGHT: Final = frozenset({Manner.SLOW, Manner.PROMPT})
"""The manners whose answer is one."""
