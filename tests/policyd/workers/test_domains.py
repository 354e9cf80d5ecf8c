"""What the parent knows of the relay domains is told to the workers."""

from pathlib import Path
from typing import cast

import pytest

from mxweir.config import Config, loads
from mxweir.log import LogObserver
from mxweir.metrics import Metrics
from mxweir_policyd.domains import RelayDomains
from mxweir_policyd.relaydomains.report import Following, Report
from mxweir_policyd.workers.domains import SharedDomains
from mxweir_policyd.workers.messages import Domains
from mxweir_policyd.workers.pool import Workers


def config(directory: Path) -> Config:
    return loads(f'state_dir = "{directory}"\n[postgres]\ndsn = "host=127.0.0.1 port=1 dbname=none"\n')


async def test_while_the_parents_follower_tries_in_vain_to_connect_a_worker_need_not_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Domains] = []
    parent = RelayDomains(config(tmp_path / "parent"), lambda _: None, Metrics("policyd"))
    workers = Workers(
        config(tmp_path / "parent"), parent, lambda _: None, cast("LogObserver", None), Metrics("policyd")
    )
    monkeypatch.setattr(workers, "_tell_all", told.append)
    worker = SharedDomains(
        config(tmp_path / "worker"), Domains(True, False), lambda _: None, Metrics("policyd")
    )
    assert parent._postgres is not None
    assert worker._postgres is not None
    for state, hopeless in ((Following.AWAY, True), (Following.FOLLOWING, False)):
        parent._postgres._keeper._take(Report(state))
        worker.changed(told[-1])
        assert worker._postgres._asker._hopeless() is hopeless
    worker.close()
    parent.close()
