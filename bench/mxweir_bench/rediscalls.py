"""Asks Redis what mxweir asks it, without mxweir: what it takes then is Redis's alone."""

import itertools
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import hiredis

from mxweir.config import load as load_config
from mxweir.facts import Facts, Folder
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shapes import CHARGE, Question, Shapes, arguments_of, packed
from mxweir.ratelimit.together import SCRIPT
from mxweir_bench import servers
from mxweir_bench.load import InvalidRunError
from mxweir_policyd.protocol import RequestReader


def questions(home: Path, requests: Sequence[bytes], limits: str) -> list[Question]:
    """What Redis is asked for these requests."""
    config = load_config(servers.configure(home, "127.0.0.1:1", counted=limits))
    folder, reader = Folder(), RequestReader()
    shapes = Shapes(Limits(config.limit, folder), "mxweir")
    asked = []
    for request in requests:
        ((state, client, helo, sender, recipient, queue_id, instance, size, user, _),) = reader.feed(request)
        parts = folder.client[client], folder.sender[sender], folder.recipient[recipient]
        facts = Facts(*parts, helo, user, state, b"", instance, queue_id, size)
        if question := shapes.question(facts):
            asked.append(question)
    return asked


def calls(asked: Sequence[Question], batch: int) -> Iterator[bytes]:
    """These questions as Redis takes them, so many in a call."""
    for first in range(0, len(asked), batch):
        together = asked[first : first + batch]
        shape = together[0].shape
        names, arguments = packed(together)
        keys, told = (*shape.begin, *names), arguments_of(shape, arguments, 0, CHARGE)
        words = ("EVALSHA", SCRIPT.sha, len(keys), *keys, *told)
        yield hiredis.pack_command(words)  # type: ignore[arg-type] # its stub says one word


def exchange(connections: Sequence[socket.socket], rows: Sequence[bytes]) -> None:
    """Send the calls, one on each connection at a time; InvalidRunError when one is not simply answered."""
    rest = iter(rows)
    while row := list(itertools.islice(rest, len(connections))):
        for connection, call in zip(connections, row, strict=False):
            connection.sendall(call)
        for connection, _ in zip(connections, row, strict=False):
            reply = _reply(connection)
            if isinstance(reply, hiredis.ReplyError) or (isinstance(reply, list) and len(reply) != 1):
                raise InvalidRunError(f"Redis replies {reply!r:.200}")


def _reply(connection: socket.socket) -> object:
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        reader.feed(connection.recv(65536))
    return reply
