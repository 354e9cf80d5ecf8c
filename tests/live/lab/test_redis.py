"""The lab's Redis does what the tests of Redis trouble count on."""

import pytest

from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import LabError
from mxweir_ops.lab.redis import Redis, command


def test_frozen_it_answers_nothing_and_killed_it_comes_back_empty():
    with temporary_directory() as directory, Redis(directory) as redis:
        assert redis.cli("SET", "key", 1) == b"OK"
        assert command(redis.inet, "GET", "key") == b"1"
        assert (redis.calls("get"), redis.calls("mget")) == (1, 0)
        redis.freeze()
        assert not redis.answers()
        redis.thaw()
        assert redis.cli("GET", "key") == b"1"
        redis.kill()
        assert not redis.answers()
        redis.start()
        assert redis.cli("GET", "key") is None


def test_settings_go_over_the_labs_and_an_error_has_redis_own_text():
    with temporary_directory() as directory, Redis(directory, {"maxmemory": "1mb"}, "second") as redis:
        assert redis.cli("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"1048576"]
        with pytest.raises(LabError, match=r"^ERR unknown command 'NOPE'"):
            redis.cli("NOPE")
        redis.settings["maxmemory"] = "2mb"
        redis.restart()
        assert redis.cli("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"2097152"]


def test_one_that_cannot_start_says_why_in_one_line():
    with temporary_directory() as directory:
        redis = Redis(directory, {"maxmemory": "much"})
        with (
            pytest.raises(LabError, match=r"argument must be a memory value|ended with status 1") as error,
            redis,
        ):
            pass
    assert "\n" not in str(error.value)
