"""Two hundred messages end at the same moment, and the scanner says nothing: when is the last answer there?

Sent by SMTP through real Postfix, and to the milter directly (mta.py). Every
message may be scanned at once and no breaker opens, so that all of them wait for
the deadline: it is the front that is measured.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from mxweir.endpoint import Endpoint, Unix
from mxweir_bench import delivery, milters
from mxweir_bench.load import InvalidRunError
from mxweir_bench.mta import Letter, Session
from mxweir_bench.report import Part, Target, at_most, table
from mxweir_ops.lab.hostile import HostileEngine, Manner

MESSAGES = 200
DEADLINE = 2.0
"""Seconds."""

FRONTS = ("asyncio", "libmilter")
SMTP, DIRECT = "through Postfix", "directly"

_BREAKER = "[milter.breaker]\nmin_calls = 10000\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One front, one way: the slowest answer of each round, in seconds after the end of the message."""

    front: str
    way: str
    slowest: tuple[float, ...]

    @property
    def over(self) -> float:
        """Milliseconds that the slowest of all came after the deadline."""
        return 1000 * (max(self.slowest) - DEADLINE)


def part(directory: Path, rounds: int) -> Part:
    """Both fronts, both ways."""
    rows = [row for front in FRONTS for row in measure(directory, front, rounds)]
    targets: list[Target] = [
        at_most(f"{MESSAGES} ends of message, {row.way}: slowest, over the deadline", row.over, 100, "ms")
        for row in rows
        if row.front == "asyncio"
    ]
    shown = table(
        ("front", "sent", "slowest over the deadline, each round"),
        [
            (row.front, row.way, ", ".join(f"{1000 * (one - DEADLINE):.0f} ms" for one in row.slowest))
            for row in rows
        ],
    )
    text = f"""\
## {MESSAGES} simultaneous ends of message, silent engine

Deadline {DEADLINE:g} s, 4 KiB messages, {rounds} rounds; from the end of the message to its answer.

{shown}"""
    return Part([asdict(row) for row in rows], text, targets)


def measure(directory: Path, front: str, rounds: int) -> list[Row]:
    """One front, first through Postfix and then directly. LabError when something cannot be had."""
    home = directory / f"burst-{front}"
    home.mkdir()
    endpoint = Unix(f"{home}/silent")
    settings = f'deadline = "{DEADLINE:g}s"\n'
    with ExitStack() as stack:
        stack.enter_context(HostileEngine("spamd", endpoint, Manner.SILENT))
        engine = milters.spamd(endpoint, f"max_scans = {2 * MESSAGES}\n{_BREAKER}")
        ours = stack.enter_context(milters.mxweir("mxweir", home, engine, front, milter=settings))
        mx = stack.enter_context(delivery.postfix("mxweir", home, {"smtpd_milters": ours.milter.setting}))
        asyncio.run(_by_smtp(mx.port))  # every process of Postfix has started
        smtp = [asyncio.run(_by_smtp(mx.port)) for _ in range(rounds)]
        direct = [asyncio.run(_directly(ours.milter.endpoint)) for _ in range(rounds)]
        unscanned = ours.metric('mxweir_milter_unscanned_total{reason="deadline"}')
    if unscanned != (expected := (2 * rounds + 1) * MESSAGES):
        raise InvalidRunError(f"{unscanned:.0f} of {expected} messages met the deadline unscanned")
    return [Row(front, SMTP, tuple(smtp)), Row(front, DIRECT, tuple(direct))]


async def _directly(endpoint: Endpoint) -> float:
    """The slowest answer, in seconds."""
    sessions = [await Session.open(endpoint) for _ in range(MESSAGES)]
    for session in sessions:
        await session.begin(Letter(4096))
    answers = await asyncio.gather(*(session.end() for session in sessions))
    for session in sessions:
        session.close()
    return max(answer.seconds for answer in answers)


async def _by_smtp(port: int) -> float:
    """The slowest reply to the end of a message, in seconds."""
    talks = await asyncio.gather(*(_until_the_end(port) for _ in range(MESSAGES)))
    return max(await asyncio.gather(*(_end(*talk) for talk in talks)))


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _until_the_end(port: int) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = b"Subject: x\r\n\r\n" + (b"x" * 78 + b"\r\n") * 51
    commands: Sequence[tuple[bytes, bytes]] = (
        (b"", b"220"),
        (b"EHLO client.example\r\n", b"250"),
        (b"MAIL FROM:<a@sender.example>\r\n", b"250"),
        (b"RCPT TO:<b@rcptdom1.example>\r\n", b"250"),
        (b"DATA\r\n", b"354"),
    )
    for command, wanted in commands:
        writer.write(command)
        await _reply(reader, wanted)
    writer.write(text)
    await writer.drain()
    return reader, writer


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    writer.write(b".\r\n")
    await _reply(reader, b"250")
    seconds = loop.time() - began
    writer.close()
    return seconds


async def _reply(reader: asyncio.StreamReader, wanted: bytes) -> None:
    line = b"   -"
    while line[3:4] == b"-":
        line = await reader.readline()
    if not line.startswith(wanted):
        raise InvalidRunError(f"Postfix says {line.decode(errors='replace').strip()!r}")
