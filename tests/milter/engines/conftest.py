"""Every test of the clients runs on both kinds of loop: uvloop's, and Python's own, for where that is not."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops by their names, which become part of the tests'."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
