"""The relay domains of a daemon, without PostgreSQL; with it, see tests/live/postgresql."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mxweir.config import loads
from mxweir.domains.match import Match, State
from mxweir.metrics import Metrics
from mxweir.service import SettingError
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.refresh import DomainsFile


def test_one_load_of_the_domains_file_ends_before_the_next_begins(tmp_path: Path) -> None:
    class Slow(DomainsFile):
        def load(self, replica: object, observe: Callable[..., None]) -> None:
            steps.append("begins")
            time.sleep(0.05)
            steps.append("ends")

    async def twice() -> None:
        domains = RelayDomains(loads(f'state_dir = "{tmp_path}"'), lambda _: None, Metrics("policyd"))
        domains._file = Slow(tmp_path / "domains", 0.2)
        await asyncio.gather(domains._load(), domains._load())
        domains.close()

    steps: list[str] = []
    asyncio.run(twice())
    assert steps == ["begins", "ends"] * 2


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
