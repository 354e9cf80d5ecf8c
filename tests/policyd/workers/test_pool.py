"""The pool with workers that are other programs: ones that cannot start, that hang, that say too much."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import pytest_asyncio

from mxweir.clock import system_clock
from mxweir.config import Config, loads
from mxweir.events import Notice, Trouble, notice
from mxweir.log import LogObserver
from mxweir.metrics import Metrics
from mxweir.service import ServiceError, SettingError
from mxweir.testing import Recorder
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.workers.member import Member
from mxweir_policyd.workers.messages import Told
from mxweir_policyd.workers.pool import Workers

PROGRAM = """#!{python} -P
import sys
sys.path[:] = {path!r}
import signal, time
from mxweir.metrics import Metrics
from mxweir_policyd.workers.messages import *
def say(message):
    sys.stdout.buffer.write(packed(message))
    sys.stdout.flush()
{does}
"""
SERVES = "say(Serving())\nsys.stdin.buffer.read()\n"


def config() -> Config:
    return loads('[policyd]\nworkers = 2\n[redis]\nurl = "redis+unix:///nowhere"\n')


class Pool:
    """Two workers, each of which is a program that does this."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.recorder = Recorder()
        self.metrics = Metrics("policyd")
        self.log = program.with_suffix(".log").open("w")
        log = LogObserver(config().log, system_clock(), "policyd", self.log)
        domains = cast("RelayDomains", SimpleNamespace(pending=False, hopeless=False, describe=lambda: ""))
        self.workers = Workers(config(), domains, self.recorder, log, self.metrics)

    async def start(self, does: str) -> None:
        self.does(does)
        await self.workers.start()

    def does(self, does: str) -> None:
        text = PROGRAM.format(python=sys.executable, path=sys.path, does=does)
        fresh = self._program.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.rename(self._program)

    def troubles(self, what: str) -> list[Trouble]:
        return [event for event in self.recorder.events if isinstance(event, Trouble) and event.what == what]

    def notices(self, what: str) -> list[Notice]:
        return [event for event in self.recorder.events if isinstance(event, Notice) and event.what == what]

    def members(self) -> list[Member]:
        return self.workers._members()

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    program = tmp_path / "worker"
    monkeypatch.setattr("mxweir_policyd.workers.member.sys", SimpleNamespace(executable=str(program)))
    monkeypatch.setattr("mxweir_policyd.workers.pool.random", lambda: 0.0)
    made = Pool(program)
    yield made
    await made.workers.end(served=False)
    made.log.close()


@pytest.mark.parametrize(("status", "kind"), [(1, ServiceError), (2, SettingError)])
async def test_a_worker_that_cannot_start_at_first_ends_the_daemon_with_its_reason(
    pool: Pool, status: int, kind: type[ServiceError]
) -> None:
    with pytest.raises(kind, match=r"^no such place$") as caught:
        await pool.start(f"say(Failed('no such place', {status}))")
    assert caught.value.status == status


async def test_a_worker_that_dies_before_it_serves_ends_the_daemon(pool: Pool) -> None:
    with pytest.raises(ServiceError, match="a worker ended with status 3"):
        await pool.start("sys.exit(3)")


async def test_a_program_that_is_not_there_ends_the_daemon(pool: Pool) -> None:
    with pytest.raises(ServiceError, match=r"^a worker cannot be started: .*No such file"):
        await pool.workers.start()


async def test_one_that_cannot_start_later_is_tried_again_after_pauses_that_grow(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.workers.pool.random", lambda: 1.0)
    await pool.start(SERVES)
    pool.does("say(Failed('no such place', 1))")
    pool.members()[0].kill()
    await pool.until(lambda: len(pool.troubles("worker ended")) >= 2)
    first, second, *_ = pool.troubles("worker ended")
    assert first.detail.startswith("signal 9 after ")
    assert first.detail.endswith("; another one in 0.5 s")
    assert second.detail.startswith("no such place after ")
    assert second.detail.endswith("; another one in 1.0 s")
    assert pool.workers.not_ready() == ""
    next(member for member in pool.members() if member.serving).kill()
    await pool.until(pool.workers.not_ready)
    assert pool.workers.not_ready() == "no worker serves"


async def test_one_that_has_lived_long_is_replaced_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.workers.pool._GOOD", 0.0)
    monkeypatch.setattr("mxweir_policyd.workers.pool.random", lambda: 1.0)
    await pool.start(SERVES)
    pool.members()[0].kill()
    await pool.until(lambda: len(pool.recorder.events) >= 2)
    ended, replaced, *_ = pool.recorder.events
    assert cast("Trouble", ended).detail.endswith("; another one in 0.0 s")
    assert cast("Notice", replaced).what == "worker replaced"


async def test_a_worker_that_falls_silent_stalls_the_service_and_is_then_killed_and_replaced(
    pool: Pool,
) -> None:
    await pool.start(SERVES)
    pool.members()[0].silent = 10
    assert pool.workers.stalled() == ""
    pool.workers.tick()
    pid = pool.members()[0].pid
    assert pool.workers.stalled() == f"worker {pid} has said nothing for 11 s"
    assert pool.troubles("worker hung") == []
    for _ in range(4):
        pool.workers.tick()
    assert [event.detail for event in pool.troubles("worker hung")] == [
        f"process {pid} has said nothing for 15 s; killed"
    ]
    await pool.until(lambda: pool.notices("worker replaced"))
    assert (pool.workers.stalled(), pid in [member.pid for member in pool.members()]) == ("", False)


async def test_a_worker_that_speaks_is_not_silent(pool: Pool) -> None:
    await pool.start(
        "say(Serving())\nwhile True:\n    say(Beat(Metrics('policyd').figures(), 0))\n    time.sleep(0.01)"
    )
    for member in pool.members():
        member.silent = 14
    await pool.until(lambda: not any(member.silent for member in pool.members()))


async def test_a_worker_that_takes_no_configuration_is_killed_and_replaced_with_it(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.workers.pool._TAKE", 0.05)
    await pool.start(SERVES)
    former = {member.pid for member in pool.members()}
    await pool.workers.take(config())
    assert [event.detail.partition(" took")[2] for event in pool.troubles("worker hung")] == [
        " no new configuration for 0.05 s; killed"
    ] * 2
    await pool.until(lambda: len(pool.notices("worker replaced")) >= 2)
    assert not former & {member.pid for member in pool.members()}


async def test_what_both_say_of_themselves_is_told_once_and_again_later(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("mxweir_policyd.workers.pool.monotonic", lambda: now)
    word = notice("domains can be confirmed again")
    for _ in range(2):
        pool.workers._told(Told(word))
    pool.workers._told(Told(notice("another")))
    now = 105.0
    pool.workers.tick()
    pool.workers._told(Told(word))
    assert pool.recorder.events == [word, notice("another"), word]
    assert len(pool.workers._lately) == 1


async def test_a_question_at_the_control_socket_gets_its_answer_though_no_worker_has_one(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.workers.pool._ANSWER", 0.05)
    await pool.start(SERVES)
    assert await pool.workers.answer(b"{}") == {"error": "no worker answers"}


async def test_what_a_worker_prints_goes_to_the_log_in_whole_lines(pool: Pool, tmp_path: Path) -> None:
    await pool.start(
        "sys.stderr.buffer.write(b'half a '); sys.stderr.flush(); say(Serving())\n"
        "sys.stdin.buffer.read(1); sys.stderr.buffer.write(b'line \\xff\\nno end'); sys.exit(0)"
    )
    await pool.until(lambda: len(pool.troubles("worker ended")) >= 2)
    await pool.workers.end(served=False)
    lines = (tmp_path / "worker.log").read_text().splitlines()
    # Those that replace the first two say the same, in any order with them; the last are stopped half-way.
    assert lines.count("half a line \\xff") >= 2
    assert lines.count("no end") >= 2
    assert set(lines) <= {"half a line \\xff", "no end", "half a "}


async def test_a_stop_does_not_wait_for_a_worker_that_is_to_be_started_later(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxweir_policyd.workers.pool.random", lambda: 1.0)
    monkeypatch.setattr(
        "mxweir_policyd.workers.pool.Backoff", lambda first: SimpleNamespace(failed=lambda _: 600)
    )
    await pool.start("say(Serving())\nsys.stdin.buffer.read(1)\nsys.exit(0)")
    await pool.until(lambda: len(pool.troubles("worker ended")) >= 2)
    async with asyncio.timeout(20):
        await pool.workers.drain(60.0)
