import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from mxweir.config import loads
from mxweir_policyd.app import PolicyDaemon
from mxweir_policyd.refresh import DomainsFile


def test_one_load_of_the_domains_ends_before_the_next_begins(tmp_path: Path) -> None:
    class Slow(DomainsFile):
        def load(self, replica: object, observe: Callable[..., None]) -> None:
            steps.append("begins")
            time.sleep(0.05)
            steps.append("ends")

    async def twice() -> None:
        daemon = PolicyDaemon(loads(f'state_dir = "{tmp_path}"'), tmp_path / "mxweir.toml")
        daemon._file = Slow(tmp_path / "domains", 0.2)
        await asyncio.gather(daemon._load_domains(), daemon._load_domains())
        daemon._replica.close()

    steps: list[str] = []
    asyncio.run(twice())
    assert steps == ["begins", "ends"] * 2
