"""Where the limits by content are counted: in this process, or for all hosts in Redis.

Whatever goes wrong here lets a message pass: it is scanned all the same.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path

from mxweir import service
from mxweir.background import go_on
from mxweir.clock import Clock
from mxweir.config import Config
from mxweir.control import Control, ControlServer, control_endpoint
from mxweir.events import Observer, Trouble
from mxweir.facts import ContentFacts, Folder
from mxweir.ratelimit.bulletin import Bulletin
from mxweir.ratelimit.control import LimitsControl
from mxweir.ratelimit.kept import Kept
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.shared import Shared
from mxweir.ratelimit.talkers import Talkers
from mxweir.redis.servers import Servers, connect
from mxweir_milter.limits import Asking, Question
from mxweir_milter.verdict import Failed, Reason

_SHARE = 4
"""Into as many parts the milter's deadline is cut, of which asking Redis may take one."""

_REFUSED = Failed(Reason.INTERNAL, detail="refused by a limit: there is nothing to conclude from")


def snapshot_path(state_dir: Path) -> Path:
    """Where the counters are kept across a restart; the policy daemon's have a file of their own."""
    return state_dir / "content-limits.state"


def asking_of(config: Config, folder: Folder) -> Asking | None:
    """The limits by content of a configuration, with empty counters; None where there are none."""
    rules = [rule for rule in config.limit if rule.by_content]
    if not rules:
        return None
    share = config.redis.degraded_factor if config.redis is not None else 1.0
    return Asking(folder, Limits(rules, folder, config.milter.max_keys, share))


class Counting:
    """Asks the limits in force; belongs to one event loop."""

    def __init__(self, config: Config, asking: Asking | None, clock: Clock, observe: Observer) -> None:
        self._clock = clock
        self._observe = observe
        self._prefix = ""
        self._talkers = Talkers(clock())
        self._servers = self._connect(config, asking)
        self._background: list[asyncio.Task[None]] = []
        self._asking = asking
        self._shared = self._share(config)
        self.kept = Kept(snapshot_path(config.state_dir), lambda: self._limits, clock, observe)
        """The counters of this process, in their file."""
        self._state_dir = config.state_dir
        self._commands: list[service.Listener | asyncio.AbstractServer] = []

    async def start(self) -> None:
        """Go on with the counters of a former process, and connect to Redis where there is one."""
        if self._servers is not None:
            await self._reach(self._servers)
        self.kept.load()
        await self._hear_commands()

    async def ask(self, question: Question) -> Failed | None:
        """Ask and charge, and put down what was said; None when the message is to be scanned."""
        try:
            question.outcome = await self._decide(question.facts)
        except Exception as error:  # noqa: BLE001 - whatever it is, a message is not lost for it
            self._observe(Trouble("limits not asked", repr(error), "error"))
        outcome = question.outcome
        return _REFUSED if outcome is not None and outcome.refusal is not None else question.instead

    def tick(self) -> None:
        """Forget what is over; call it every second or so."""
        now = self._clock()
        if self._limits is not None:
            self._limits.tick(now)
        if self._shared is not None:
            self._shared.tick(now)

    def sizes(self) -> Iterable[tuple[tuple[str, ...], float]]:
        """How many keys each limit remembers in this process, for the metric."""
        return [((name,), count) for name, count in self._limits.sizes()] if self._limits else []

    def servers(self) -> Servers | None:
        """Redis, where there is one."""
        return self._servers

    def take(self, config: Config, asking: Asking | None) -> None:
        """Count by a new configuration, go on with what was counted; SettingError leaves all as it was."""
        if self._servers is None:
            self._servers = self._connect(config, asking)
            if self._servers is not None:
                self._go_on(self._reach(self._servers))
        if asking is not None and self._limits is not None:
            asking.limits.adopt(self._limits, self._clock())
        self._asking = asking
        self._shared = self._share(config)
        if not self._commands:
            self._go_on(self._hear_commands())

    def close(self) -> None:
        """Keep the counters for the next process, and leave Redis."""
        for task in self._background:
            task.cancel()
        if self._servers is not None:
            self._servers.close()
        for each in reversed(self._commands):
            each.close()
        self.kept.save()

    @property
    def _limits(self) -> Limits | None:
        return self._asking.limits if self._asking is not None else None

    async def _decide(self, facts: ContentFacts) -> Outcome | None:
        if self._shared is None:
            return self._limits.decide(facts, self._clock()) if self._limits is not None else None
        said: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def then(outcomes: Sequence[Outcome]) -> None:
            if not said.done():  # nobody waits any more for a message that was aborted
                said.set_result(outcomes[0])

        self._shared.decide([facts], then)
        return await said

    async def _reach(self, servers: Servers) -> None:
        """Connect to Redis, and from then on take part in what processes tell each other there."""
        await servers.start()
        bulletin = Bulletin(servers, self._prefix, self._talkers, self._forget)
        self._go_on(go_on(bulletin.run, self._observe))

    async def _hear_commands(self) -> None:
        """Let the command line ask for the counters of this process, once there are some."""
        if self._asking is None:
            return
        try:
            listener = service.bind(control_endpoint(self._state_dir, "milter"), 0o600)
        except service.ServiceError as error:
            # Mail does not wait for it, nor do the limits.
            self._observe(Trouble("commands are not heard", str(error)))
            return
        control = Control({"limits": LimitsControl(self._in_force, self._clock).answer}, self._observe)
        self._commands.append(listener)
        self._commands.append(await ControlServer(control.answer, self._observe).serve(listener.socket))

    def _in_force(self) -> tuple[Limits, Folder] | None:
        return (self._asking.limits, self._asking.folder) if self._asking is not None else None

    def _go_on(self, work: Coroutine[None, None, None]) -> None:
        self._background.append(asyncio.get_running_loop().create_task(work))

    def _forget(self, limit: str, key: str) -> None:
        """An operator has reset a counter in Redis."""
        if self._shared is not None:
            self._shared.forget(limit, key)

    def _connect(self, config: Config, asking: Asking | None) -> Servers | None:
        """Redis, where it is configured and there is something to count."""
        if config.redis is None or asking is None:
            return None
        self._prefix = config.redis.prefix
        return connect(config.redis, self._observe)

    def _share(self, config: Config) -> Shared | None:
        if self._servers is None or config.redis is None or self._limits is None:
            return None
        timeout = min(config.redis.timeout, config.milter.deadline / _SHARE)
        return Shared(
            self._limits,
            self._servers,
            config.redis.prefix,
            self._clock,
            self._observe,
            timeout,
            talkers=self._talkers,
        )
