import pytest

from mxweir.config import loads
from mxweir.facts import Folder
from mxweir.ratelimit.limits import Limits
from mxweir.ratelimit.shapes import Shapes
from mxweir.ratelimit.together import Together
from mxweir.redis.errors import RedisError
from mxweir.redis.offset import Offset
from mxweir.testing import SettableClock, question


class Says:
    """Servers that say the same to everything."""

    clustered = False

    def __init__(self, reply: object) -> None:
        self.reply = reply

    def eval(self, script, keys, args, then, timeout) -> None:
        then(self.reply)

    def offset(self, key) -> Offset:
        return Offset(SettableClock())


@pytest.mark.parametrize("reply", [None, b"OK", [], [1, 2, 3], [b"late"], [[1]], 17])
def test_nonsense_is_an_error_like_any_other(reply, questions):
    answers: list[object] = []
    Together(Says(reply), 0.1).ask(questions, answers.append)  # type: ignore[arg-type]
    (answer,) = answers
    assert isinstance(answer, RedisError)
    assert answer.kind == "nonsense"


def test_an_error_is_handed_on_as_it_is(questions):
    error = RedisError("full", "OOM")
    answers: list[object] = []
    Together(Says(error), 0.1).ask(questions, answers.append)  # type: ignore[arg-type]
    assert answers == [error]


@pytest.fixture
def questions():
    """One question to Redis."""
    limits = Limits(loads('[[limit]]\nname = "a"\nkey = "sender"\nrate = "1/minute"\n').limit, Folder())
    return [Shapes(limits, "mx").question(question())]
