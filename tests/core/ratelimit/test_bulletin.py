import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from mxweir.ratelimit.bulletin import Bulletin, Names, reset_message
from mxweir.ratelimit.talkers import Talkers


class Servers:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def eval(self, script, keys, args, then, timeout) -> None:
        self.asked.append(("EVAL", *keys, *args))
        then(None)

    def ask(self, command, key, then, timeout) -> None:
        assert command[1] == key
        self.asked.append(tuple(command))
        then(None)


def bulletin(servers: Servers, forget: Callable[[str, str], None]) -> Bulletin:
    """One process's part."""
    return Bulletin(cast("Any", servers), "mxweir", Talkers(0.0), forget)


def test_a_process_reports_under_a_name_of_its_own_that_vanishes_when_it_ends():
    servers = Servers()
    one, other = (bulletin(servers, lambda *_: None) for _ in range(2))
    one.publish()
    key = Names("mxweir").report(one.process)
    assert servers.asked == [
        ("SET", key, "{}", "PX", 30_000),
        ("EVAL", "mxweir:top", one.process, 30_000),
    ]
    assert one.process != other.process


@pytest.mark.parametrize(
    ("message", "forgotten"),
    [
        (reset_message("sender", 'x\udcff"\n@y').encode(), [("sender", 'x\udcff"\n@y')]),
        (b"", []),
        (b"{}", []),
        (b"7", []),
        (b"\xff", []),
        (json.dumps([1, 2, 3]).encode(), []),
    ],
)
def test_what_is_told_of_a_reset_is_forgotten_and_nonsense_is_not_heard(message, forgotten):
    heard: list[tuple[str, str]] = []
    bulletin(Servers(), lambda *told: heard.append(told))._heard(message)
    assert heard == forgotten
