"""PostgreSQL is asked about domains that wait for it, and its answer taken for no more than it is worth."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from mxweir.config.sections import Postgres
from mxweir.domains.match import Match, State
from mxweir_policyd.relaydomains import asking
from mxweir_policyd.relaydomains.asking import Asker
from mxweir_policyd.relaydomains.confirm import Condition, Confirmations, Rules


class Promoted:
    """A connection to a standby without any domain, which is promoted behind the first question."""

    def __init__(self, silent: socket.socket) -> None:
        self._silent = silent
        self._standby = True

    async def __aenter__(self) -> "Promoted":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def fileno(self) -> int:
        return self._silent.fileno()

    async def execute(self, query: str | bytes, *_: object, **__: object) -> "Promoted":
        self._rows = [(self._standby,)] if "pg_is_in_recovery" in str(query) else []
        self._standby = self._standby and str(query).startswith("b'SET")
        return self

    async def fetchall(self) -> list[tuple[bool]]:
        return self._rows


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield ours


async def test_a_standby_that_is_promoted_amidst_a_question_has_answered_as_a_standby(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(**_: object) -> Promoted:
        return Promoted(silent)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    confirmations = Confirmations(Rules(), lambda: Condition(0.0, frozen=False), lambda _: None)
    asker = Asker(Postgres(dsn="host=none"), confirmations, 60.0, lambda _: None)

    async def answer() -> State:
        told: asyncio.Future[Match] = asyncio.get_running_loop().create_future()
        asker.ask("new.example", told.set_result)
        return (await told).state

    running = asyncio.ensure_future(asker.run())
    try:
        assert [await answer(), await answer()] == [State.FAILED, State.NOT_OURS]
    finally:
        running.cancel()


async def test_while_the_follower_does_not_get_through_nobody_else_tries_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    async def connect(**_: object) -> None:
        done.append("tried")
        raise asyncio.CancelledError if done.count("tried") == 3 else ConnectionRefusedError

    def hopeless() -> bool:
        done.append("looked")
        return done.count("looked") < 4

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    monkeypatch.setattr(asking, "random", lambda: 0.0)
    monkeypatch.setattr(asking, "_LOOK", 0.0)
    confirmations = Confirmations(Rules(), lambda: Condition(0.0, frozen=False), lambda _: None)
    asker = Asker(Postgres(dsn="host=none"), confirmations, 60.0, lambda _: None, hopeless)
    with pytest.raises(asyncio.CancelledError):
        await asker.run()
    assert done == ["tried", *["looked"] * 4, "tried", "looked", "tried"]


async def test_without_hope_it_is_tried_again_after_a_bounded_number_of_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0

    async def connect(**_: object) -> None:
        nonlocal tries
        tries += 1
        raise asyncio.CancelledError if tries == 2 else ConnectionRefusedError

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    monkeypatch.setattr(asking, "random", lambda: 0.0)
    monkeypatch.setattr(asking, "_LOOK", 0.0)
    confirmations = Confirmations(Rules(), lambda: Condition(0.0, frozen=False), lambda _: None)
    asker = Asker(Postgres(dsn="host=none"), confirmations, 60.0, lambda _: None, lambda: True)
    with pytest.raises(asyncio.CancelledError):
        await asker.run()
