import socket
import subprocess
import sys

import pytest

from mxweir.config import Redis as Settings
from mxweir.endpoint import Inet
from mxweir.metrics import Metrics, Reading
from mxweir.redis.dial import open_link
from mxweir.redis.errors import RedisError
from mxweir.redis.servers import add_gauge, connect
from mxweir.redis.url import parse_url
from mxweir.testing import Recorder

WITHOUT = """
import sys
sys.modules["hiredis"] = None
from mxweir.config import loads
from mxweir.redis.servers import connect
from mxweir.service import SettingError
config = loads('[redis]\\nurl = "redis://:hunter2@127.0.0.1"\\n')
try:
    connect(config.redis, print)
except SettingError as error:
    print(error)
"""


def test_where_hiredis_is_missing_the_configuration_is_read_and_a_client_is_refused_in_one_line():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "redis.url: hiredis is not installed; the extra mxweir[redis] brings it\n"


@pytest.mark.parametrize("url", ["redis://h", "redis+sentinel://h/m", "redis+cluster://h"])
async def test_no_client_shows_the_password_that_it_was_given(url):
    settings = Settings(url=parse_url(url.replace("//", "//user:hunter2@")))
    servers = connect(settings, Recorder())
    for thing in (settings, servers, vars(servers)):
        assert "hunter2" not in repr(thing)
    servers.close()


async def test_a_gauge_has_the_masters_by_whether_they_are_there_and_nothing_without_redis():
    metrics = Metrics("policyd")
    used = [None, connect(Settings(url=parse_url("redis://h")), Recorder())]
    add_gauge(metrics, lambda: used[0])
    values = [each.values for each in metrics.figures() if isinstance(each, Reading) and "redis" in each.name]
    assert values == [{}]
    add_gauge(metrics, lambda: used[1])
    values = [each.values for each in metrics.figures() if isinstance(each, Reading) and "redis" in each.name]
    assert values[1] == {("available",): 0, ("away",): 1}


async def test_where_nobody_listens_the_reason_is_the_systems_own_word():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(RedisError) as error:
            await open_link(Inet(*nobody.getsockname()), None, lambda: pytest.fail("nobody listens"))
    assert str(error.value) == "connection: Connection refused"
