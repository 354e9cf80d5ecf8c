import json
from typing import Any

import pytest

from mxweir.ratelimit.bulletin import Bulletin, Names, reset_message
from mxweir.ratelimit.talkers import Talkers


class Servers:
    """Keeps what it is asked."""

    clustered = False
    available = True

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.hear: Any = None

    async def start(self) -> None: ...

    def eval(self, script, keys, args, then, timeout) -> None:
        self.asked.append(("EVAL", *keys, *args))
        then(None)

    def ask(self, command, key, then, timeout) -> None:
        assert command[1] == key
        self.asked.append(tuple(command))
        then(None)

    def subscribe(self, channel, on_message, on_connected) -> None:
        self.hear = on_message

    def close(self) -> None: ...


def test_a_process_reports_under_a_name_of_its_own_that_vanishes_when_it_ends():
    servers, talkers = Servers(), Talkers(0.0)
    one, other = (Bulletin(servers, "mxweir", talkers, lambda *_: None) for _ in range(2))
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
async def test_what_is_told_of_a_reset_is_forgotten_and_nonsense_is_not_heard(message, forgotten):
    servers = Servers()
    heard: list[tuple[str, str]] = []
    bulletin = Bulletin(servers, "mxweir", Talkers(0.0), lambda *told: heard.append(told))
    bulletin._heard(message)
    assert heard == forgotten
