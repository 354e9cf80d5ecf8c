from mxweir.events import Trouble, notice
from mxweir.redis.errors import RedisError
from mxweir.redis.standing import Standing
from mxweir.testing import Recorder, SettableClock


def test_an_outage_is_told_at_its_begin_and_summed_up_at_its_end():
    told, clock = Recorder(), SettableClock()
    standing = Standing(told, clock)
    standing.well("here")
    standing.well("here")
    standing.failed("timeout")
    standing.bad("here", RedisError("connection", "gone"))
    for _ in range(3):
        standing.failed("unavailable")
        standing.bad("there", RedisError("connection", "refused"))
    clock.advance(12.34)
    standing.well("there")
    assert told.events == [
        notice("Redis connected", at="here"),
        Trouble("Redis not available", "here: connection: gone"),
        notice("Redis available again", at="there", after=12.3, unanswered="timeout=1 unavailable=3"),
    ]


def test_one_that_was_never_there_is_told_and_not_called_connected_later():
    told, clock = Recorder(), SettableClock()
    standing = Standing(told, clock)
    standing.bad("here", RedisError("loading"))
    standing.well("here")
    assert told.events == [
        Trouble("Redis not available", "here: loading"),
        notice("Redis available again", at="here", after=0.0, unanswered="0"),
    ]
