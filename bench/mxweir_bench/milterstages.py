"""Where the time of one message goes.

    PYTHONPATH=bench .venv/bin/python -m mxweir_bench.milterstages

Runs the milter's own objects in this process and times each stage by itself, on a
conversation as Postfix leads it. Then measures through Postfix what a message costs
a milter on the same event loop that looks at nothing (milterfloor.py), and what it
costs the daemon; what is left between is that a busy machine's caches are cold.
Of several passes the best counts: whatever else runs on the machine only adds.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, process_time

from mxweir.clock import system_clock
from mxweir.config import Config, load
from mxweir.deadline import Deadline
from mxweir.endpoint import Unix
from mxweir.events import Observer, Scanned, tell_all
from mxweir.log import LogObserver
from mxweir.metrics import Metrics, ScanMetrics
from mxweir.serving import new_event_loop
from mxweir_bench import delivery, milter, milters, servers, tools
from mxweir_bench.delivery import Mail
from mxweir_bench.milter import SESSIONS
from mxweir_bench.mta import Letter
from mxweir_bench.mta import Session as Mta
from mxweir_bench.report import table
from mxweir_milter import scanner
from mxweir_milter.app import build_policy
from mxweir_milter.engines.spamc import symbols_request
from mxweir_milter.fronts.codec import Command, CommandReader
from mxweir_milter.fronts.dialogue import Dialogue, Spoken
from mxweir_milter.message import Message
from mxweir_milter.received import prologue
from mxweir_milter.room import Room
from mxweir_milter.session import Session, Wanted
from mxweir_milter.tenants import Tenants
from mxweir_milter.verdict import Scored

_PASSES, _MESSAGES = 5, 500
_RESULT = Scored(0.1, 5.0, ("BAYES_00", "DKIM_VALID"), "spamd")

Costs = dict[str, float]
"""Stage and microseconds a message."""


class Conversation:
    """One message's: what Postfix said, piece by piece as it was read, as commands, and what came of it."""

    def __init__(self, new_session: Callable[[], Session]) -> None:
        self.new_session = new_session
        self.pieces: list[bytes] = []
        self.commands: list[Command] = []
        self.wanted: Wanted
        self.event: Scanned

    async def record(self, size: int) -> None:
        """Play it, once."""
        with tempfile.TemporaryDirectory() as place:
            endpoint = Unix(f"{place}/milter")
            server = await asyncio.start_unix_server(self._listen, endpoint.path)
            async with server, await Mta.open(endpoint) as session:
                await session.send(Letter(size))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands, dialogue = CommandReader(), self.dialogue(lambda _: None)
        while piece := await reader.read(256_000):
            self.pieces.append(piece)
            for command in commands.feed(piece):
                self.commands.append(command)
                if isinstance(said := dialogue.take(command), Wanted):
                    self.wanted, said = said, dialogue.conclude(_RESULT)
                if isinstance(said, Spoken):
                    assert said.event is not None
                    self.event, said = said.event, said.packets
                writer.write(said or b"")
        writer.close()

    def dialogue(self, observe: Observer) -> Dialogue:
        """A new one, as each connection has."""
        return Dialogue(self.new_session, observe)


def main() -> None:
    """Measure and print."""
    if servers.IN_MEMORY.is_dir():
        tempfile.tempdir = str(servers.IN_MEMORY)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        directory = Path(place)
        directory.chmod(0o755)
        built = tools.build(directory)
        engine = stack.enter_context(milters.engine(built.fakespamd, directory))
        home = directory / "outside"
        home.mkdir()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            inside = {
                name: runner.run(in_process(engine.endpoint, directory, mail.size))
                for name, mail in milter.MAILS.items()
            }
        outside = through_postfix(engine, home)
    print(markdown(inside, outside))


def markdown(inside: dict[str, Costs], outside: dict[str, Costs]) -> str:
    """All costs as one table."""
    columns: dict[str, Costs] = {}
    for name, costs in inside.items():
        floor, whole = outside[name]["floor"], outside[name]["mxweir"]
        known = {"sockets and event loop towards Postfix": floor, **costs}
        columns[name] = {**known, "cold caches, and everything else": whole - sum(known.values())}
        columns[name]["whole daemon"] = whole
    stages = next(iter(columns.values()))
    rows = [(stage, *(f"{costs[stage]:.0f}" for costs in columns.values())) for stage in stages]
    return table(("stage, µs/message", *columns), rows)


async def in_process(engine: Unix, directory: Path, size: int) -> Costs:
    """Each stage by itself."""
    config = _config(engine, directory)
    policy = build_policy(config, Tenants(config.state_dir, lambda _: None))
    room = Room(config.milter.max_memory)
    talk = Conversation(lambda: Session(lambda: policy, system_clock(), monotonic, room))
    await talk.record(size)
    message = talk.wanted.message
    scans = scanner.build(config.milter, lambda _: None)

    async def scan() -> None:
        result = await scans.scan(message, Deadline.after(8.0, monotonic))
        assert isinstance(result, Scored), result

    scanning = await _best_scan(scan)
    metrics = tell_all(ScanMetrics(Metrics("milter")).handlers())
    request = _best(lambda: _request(message))
    with (directory / "log").open("w", buffering=1) as stream:
        log = tell_all(LogObserver(config.log, system_clock(), "milter", stream).handlers())
        return {
            "packets to commands": _best(lambda: _read(talk)),
            "session, answer, header edits": _best(lambda: _answer(talk)),
            "Received header, request": request,
            "asking the engine": scanning - request,
            "count for the metrics": _best(lambda: metrics(talk.event)),
            "log line": _best(lambda: log(talk.event)),
        }


def through_postfix(engine: milters.Engine, directory: Path) -> dict[str, Costs]:
    """CPU time a message: milterfloor.py, and the daemon."""
    with ExitStack() as stack:
        floor = stack.enter_context(milters.floor("floor", directory))
        ours = stack.enter_context(
            milters.mxweir(
                "mxweir", directory, milters.spamd(engine.endpoint, f"max_scans = {SESSIONS}"), "asyncio"
            )
        )
        setups = [
            stack.enter_context(milter.setup("floor", directory, floor)),
            stack.enter_context(milter.setup("mxweir", directory, ours.milter, engine)),
        ]
        return {size: _cpu(setups, mail) for size, mail in milter.MAILS.items()}


def _cpu(setups: list[delivery.Setup], mail: Mail) -> Costs:
    runs = delivery.measure(setups, mail, _PASSES)
    return {name: 1000 * min(delivery.figures(of, "server_cpu_ms")) for name, of in runs.items()}


def _config(engine: Unix, directory: Path) -> Config:
    path = directory / "mxweir.toml"
    text = f'state_dir = "{directory}"\n[log]\ndecisions = "1000000/second"\n[milter]\nskip = []\n'
    path.write_text(text + milters.spamd(engine))
    return load(path)


def _read(talk: Conversation) -> None:
    reader = CommandReader()
    for piece in talk.pieces:
        for _ in reader.feed(piece):
            pass


def _answer(talk: Conversation) -> None:
    dialogue = talk.dialogue(lambda _: None)
    for command in talk.commands:
        if isinstance(dialogue.take(command), Wanted):
            dialogue.conclude(_RESULT)


def _request(message: Message) -> None:
    symbols_request(prologue(message.client, message.envelope, message.arrived), message.content)


def _best(stage: Callable[[], object]) -> float:
    """Microseconds of one in the fastest pass."""
    passes = []
    for _ in range(_PASSES):
        started = process_time()
        for _ in range(_MESSAGES):
            stage()
        passes.append(process_time() - started)
    return min(passes) / _MESSAGES * 1e6


async def _best_scan(scan: Callable[[], Awaitable[None]]) -> float:
    """The same of a scan; our own CPU time, not the engine's."""
    passes = []
    for _ in range(_PASSES):
        started = process_time()
        for _ in range(_MESSAGES):
            await scan()
        passes.append(process_time() - started)
    return min(passes) / _MESSAGES * 1e6


if __name__ == "__main__":
    main()
