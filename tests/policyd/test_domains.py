"""The relay domains of a daemon, without PostgreSQL; with it, see tests/live/postgresql."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

from mxweir.config import Config, loads
from mxweir.domains.chunks import name_of, number_of
from mxweir.domains.match import Match, State, digest
from mxweir.domains.record import FROM_FILE, Record
from mxweir.events import Event, Trouble
from mxweir.metrics import Metrics
from mxweir.service import SettingError
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.refresh import DomainsFile
from mxweir_policyd.relaydomains.replica import Replica


def test_one_load_of_the_domains_file_ends_before_the_next_begins(tmp_path: Path) -> None:
    class Slow(DomainsFile):
        def load(self, replica: object, observe: Callable[..., None]) -> bool:
            steps.append("begins")
            time.sleep(0.05)
            steps.append("ends")
            return True

    async def twice() -> None:
        domains = RelayDomains(loads(f'state_dir = "{tmp_path}"'), lambda _: None, Metrics("policyd"))
        domains._file = Slow(tmp_path / "domains", 0.2)
        await asyncio.gather(domains._load(), domains._load())
        domains.close()

    steps: list[str] = []
    asyncio.run(twice())
    assert steps == ["begins", "ends"] * 2


def test_flags_that_are_damaged_are_mended_before_anybody_is_refused_by_them(tmp_path: Path) -> None:
    class Looking(DomainsFile):
        def load(self, replica: Replica, observe: Callable[..., None]) -> bool:
            said.append(replica.ask("known.example"))
            return True

    async def load() -> None:
        domains = RelayDomains(loads(f'state_dir = "{tmp_path}"'), told.append, Metrics("policyd"))
        domains._file = Looking(tmp_path / "domains", 0.2)
        said.append(domains._replica.ask("known.example"))
        await domains._load()
        domains.close()

    replica = Replica(tmp_path)
    replica.add([Record("known.example")], FROM_FILE)
    with replica._environment.begin(write=True) as write:
        name = name_of(number_of(digest("known.example")))
        write.put(name, bytes(11 * len(write.get(name) or b"")))
    replica.close()
    said: list[State] = []
    told: list[Event] = []
    asyncio.run(load())
    assert said == [State.FAILED, State.OURS]
    assert Trouble("domain table repaired", "its flags were damaged", "error") in told


@pytest.mark.parametrize("fault", [None, RuntimeError("no")])
def test_until_the_domains_file_was_loaded_after_a_start_nothing_is_refused_for_good(
    tmp_path: Path, fault: Exception | None
) -> None:
    """It may have been written while no daemon ran; a table of last time is asked from the start on."""
    file = tmp_path / "domains"
    file.write_text("known.example\nnew.example\n")
    replica = Replica(tmp_path)
    replica.add([Record("known.example")], FROM_FILE)
    replica.close()
    asked = ("known.example", "new.example", "foreign.example")

    async def started() -> tuple[list[State], list[State]]:
        config = loads(f'state_dir = "{tmp_path}"\n[domains]\nfile = "{file}"')
        domains = RelayDomains(config, lambda _: None, Metrics("policyd"))
        if fault is not None:
            domains._file.load = Mock(side_effect=fault)  # type: ignore[method-assign]
        await domains.first_load()
        before = [domains.table.find(name).state for name in asked]
        with suppress(RuntimeError):
            await domains._load()
        after = [domains.table.find(name).state for name in asked]
        domains.close()
        return before, after

    before, after = asyncio.run(started())
    assert before == [State.OURS, State.FAILED, State.FAILED]
    assert after == [State.OURS, State.NOT_OURS if fault else State.OURS, State.NOT_OURS]


def test_a_domain_of_the_file_that_a_reload_names_is_not_refused_before_it_is_loaded(tmp_path: Path) -> None:
    former, other = tmp_path / "former", tmp_path / "other"
    former.write_text("known.example\n")
    other.write_text("known.example\nnew.example\n")
    loading, go_on = threading.Event(), threading.Event()

    class Slow(DomainsFile):
        def load(self, replica: Replica, observe: Callable[..., None]) -> bool:
            loading.set()
            assert go_on.wait(90)
            return super().load(replica, observe)

    def config(file: Path) -> Config:
        return loads(f'state_dir = "{tmp_path}"\n[domains]\nfile = "{file}"')

    async def reloaded() -> tuple[list[State], list[State]]:
        domains = RelayDomains(config(former), lambda _: None, Metrics("policyd"))
        await domains.first_load()
        told: list[bool] = []
        domains.changed = told.append
        with patch("mxweir_policyd.domains.DomainsFile", Slow):
            taking = asyncio.ensure_future(domains.take(config(other)))
            assert await asyncio.to_thread(loading.wait, 90)
        before = [domains.table.find(name).state for name in asked]
        go_on.set()
        await taking
        after = [domains.table.find(name).state for name in asked]
        domains.close()
        assert told == [True, False]
        return before, after

    asked = ("known.example", "new.example", "foreign.example")
    before, after = asyncio.run(reloaded())
    assert before == [State.OURS, State.FAILED, State.FAILED]
    assert after == [State.OURS, State.OURS, State.NOT_OURS]


def test_without_postgresql_nothing_can_be_confirmed_and_nothing_is_said_of_a_replica(tmp_path: Path) -> None:
    domains = RelayDomains(loads(f'state_dir = "{tmp_path}"'), lambda _: None, Metrics("policyd"))
    said: list[Match] = []
    domains.confirm("new.example", said.append)
    assert (said, domains.describe()) == ([Match(State.FAILED)], "")
    domains.close()


def test_without_psycopg_a_configuration_with_postgresql_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loads(f'state_dir = "{tmp_path}"\n[postgres]\ndsn = "dbname=none"')
    monkeypatch.setitem(__import__("sys").modules, "mxweir_policyd.relaydomains.postgres", None)
    with pytest.raises(SettingError, match="needs psycopg, which is not installed: pip install"):
        RelayDomains(config, lambda _: None, Metrics("policyd"))
