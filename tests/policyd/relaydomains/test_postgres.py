"""PostgreSQL's part of the time that an answer may take."""

import pytest

from mxweir.config import loads
from mxweir_policyd.relaydomains.postgres import patience

REDIS = '[redis]\nurl = "redis://127.0.0.1"\ntimeout = "60ms"\n'


@pytest.mark.parametrize(("more", "seconds"), [("", 0.2), (REDIS, 0.14)])
def test_what_postgresql_and_then_redis_may_take_is_no_more_than_the_deadline(
    more: str, seconds: float
) -> None:
    assert patience(loads(f'[policyd]\ndeadline = "200ms"\n{more}')) == pytest.approx(seconds)
