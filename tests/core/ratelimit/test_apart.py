"""How a Cluster is asked, where that needs none: what is asked at once, what one after the other."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from mxweir.config import loads
from mxweir.events import Counted
from mxweir.facts import AnyFacts, Folder
from mxweir.ratelimit import apart
from mxweir.ratelimit.limits import Limits, Outcome
from mxweir.ratelimit.shapes import APART, GIVE_BACK
from mxweir.ratelimit.shared import Shared
from mxweir.redis.errors import RedisError
from mxweir.redis.offset import Offset
from mxweir.redis.servers import Servers
from mxweir.testing import Recorder, SettableClock, question, timeless, whole_message

FOLDER = Folder()
PAIRS = "".join(
    f'[[limit]]\nname = "{name}"\nkey = ["reply_to", "recipient"]\nrate = "1/hour"\n'
    for name in ("one", "two")
)
SENDER = '[[limit]]\nname = "sender"\nkey = "sender"\nrate = "1/hour"\n'

SECONDS = 0.001
"""How long a master takes to answer."""

TIMEOUT = 0.1


class Masters:
    """Masters of a Cluster on paper: they answer after a while, and a key is full or has room."""

    clustered, available = True, True

    def __init__(
        self, full: Collection[str] = (), mute: Collection[str] = (), late: Collection[str] = ()
    ) -> None:
        self.full, self.mute, self.late = full, mute, late
        self.asked: list[tuple[bytes, str, str, float]] = []
        """Mode, limit, recipient, when."""
        self.commands: list[tuple[bytes, float]] = []
        self.under_way = 0
        self.most = 0

    def eval(
        self, script: object, keys: Any, args: Any, then: Callable[[object], None], timeout: float
    ) -> None:
        loop = asyncio.get_running_loop()
        name, _, key = keys[0].decode().partition(".")
        recipient = key.rpartition("\n")[2].partition("@")[0]
        self.asked.append((args[1], name.partition(":")[2], recipient, loop.time()))
        wait = 1_000_000 if recipient in self.full else 0
        reply: object = RedisError("timeout") if recipient in self.mute else [7, 1, wait, 0]
        self._answer(then, reply, SECONDS * (1 + (recipient in self.late)))

    def ask(self, command: Any, key: object, then: Callable[[object], None], timeout: float) -> None:
        self.commands.append((command[0], asyncio.get_running_loop().time()))
        self._answer(then, b"OK", SECONDS)

    def offset(self, key: object) -> Offset:
        return Offset(SettableClock())

    def of(self, mode: bytes, limit: str) -> list[tuple[str, float]]:
        """What was asked of a limit, and when."""
        return [
            (recipient, when) for how, name, recipient, when in self.asked if (how, name) == (mode, limit)
        ]

    def _answer(self, then: Callable[[object], None], reply: object, seconds: float) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)

        def answered() -> None:
            self.under_way -= 1
            then(reply)

        asyncio.get_running_loop().call_later(seconds, answered)


async def decided(text: str, masters: Masters, *facts: AnyFacts) -> tuple[Sequence[Outcome], Recorder, float]:
    """What is said, what is told of it, and how long it took; what nobody waits for has ended then, too."""
    told, loop = Recorder(), asyncio.get_running_loop()
    limits = Limits(loads(text).limit, FOLDER)
    shared = Shared(limits, cast("Servers", masters), "mxweir", loop.time, told, TIMEOUT)
    answer: asyncio.Future[Sequence[Outcome]] = loop.create_future()
    began = loop.time()
    shared.decide(facts, answer.set_result)
    outcomes = await answer
    took = loop.time() - began
    while masters.under_way:  # noqa: ASYNC110 - whoever answers does so by a timer of the loop
        await asyncio.sleep(SECONDS)
    return outcomes, told, took


@timeless
async def test_a_message_of_a_thousand_keys_is_answered_by_redis_in_time() -> None:
    masters = Masters()
    (outcome,), told, took = await decided(PAIRS, masters, whole_message(1000, b"a.b"))
    assert outcome.refusal is None
    assert told.events == [Counted("redis", 1)]
    assert [len(masters.of(APART, limit)) for limit in ("one", "two")] == [1000, 1000]
    assert masters.most == apart.AT_ONCE
    assert took < TIMEOUT / 2


@timeless
async def test_the_second_limit_is_asked_when_all_keys_of_the_first_have_room() -> None:
    masters = Masters(late={"r0"})
    await decided(PAIRS, masters, whole_message(3, b"a.b"))
    first, second = (masters.of(APART, limit) for limit in ("one", "two"))
    assert min(when for _, when in second) >= max(when for _, when in first) + 2 * SECONDS


@timeless
async def test_all_that_a_refused_message_took_is_given_back_some_at_a_time() -> None:
    masters = Masters(full={"r150"})
    (outcome,), _, _ = await decided(PAIRS, masters, whole_message(200, b"a.b"))
    assert outcome.refusal is not None
    assert outcome.refusal.limit.name == "one"
    assert "r150@" in outcome.refusal.key
    asked, given_back = masters.of(APART, "one"), masters.of(GIVE_BACK, "one")
    assert [recipient for recipient, _ in given_back] == [key for key, _ in asked if key != "r150"]
    assert masters.of(APART, "two") == []
    assert [command for command, _ in masters.commands] == [b"SET", b"DEL"]
    assert masters.most <= apart.AT_ONCE + 1


@timeless
async def test_the_first_key_without_room_is_told_whichever_master_answers_first() -> None:
    masters = Masters(full={"r1", "r2"}, late={"r1"})
    (outcome,), _, _ = await decided(PAIRS, masters, whole_message(3, b"a.b"))
    assert outcome.refusal is not None
    assert "r1@" in outcome.refusal.key


@timeless
async def test_where_a_key_is_not_answered_for_before_one_is_full_the_process_decides() -> None:
    for mute, by in (("r0", "process"), ("r2", "redis")):
        masters = Masters(full={"r1"}, mute={mute})
        _, told, _ = await decided(PAIRS, masters, whole_message(3, b"a.b"))
        assert told.events == [Counted(by, 1)]
        charged = {"r0", "r2"} - {mute}
        assert {recipient for recipient, _ in masters.of(GIVE_BACK, "one")} == charged


@timeless
async def test_questions_that_come_together_walk_side_by_side() -> None:
    masters = Masters()
    facts = [question(sender=f"s{n}@a.example", instance=f"a.{n}", folder=FOLDER) for n in range(40)]
    outcomes, told, _ = await decided(SENDER, masters, *facts)
    assert [outcome.refusal for outcome in outcomes] == [None] * 40
    assert told.events == [Counted("redis", 1)] * 40
    assert len({when for _, when in masters.commands}) == 1
    assert len({when for _, _, _, when in masters.asked}) == 1
