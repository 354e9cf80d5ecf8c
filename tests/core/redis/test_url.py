import pytest

from mxweir.endpoint import Inet, Unix
from mxweir.redis.url import Login, Topology, Url, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://127.0.0.1:6379/0", Url(Topology.SINGLE, (Inet("127.0.0.1", 6379),))),
        ("redis://[2001:db8::1]", Url(Topology.SINGLE, (Inet("2001:db8::1", 6379),))),
        (
            "rediss://mxweir:p%40ss%2F@redis.example.org:7000/3",
            Url(Topology.SINGLE, (Inet("redis.example.org", 7000),), True, Login("mxweir", "p@ss/"), 3),
        ),
        ("redis://:pass@h", Url(Topology.SINGLE, (Inet("h", 6379),), login=Login("", "pass"))),
        ("redis+unix:///run/redis.sock?db=1", Url(Topology.SINGLE, (Unix("/run/redis.sock"),), database=1)),
        ("redis+unix://u:p@/run/a%20b", Url(Topology.SINGLE, (Unix("/run/a b"),), login=Login("u", "p"))),
        (
            "redis+sentinel://u:p@a,b:1,[::1]:2/mymaster/4?sentinel_user=s&sentinel_password=x%26y",
            Url(
                Topology.SENTINEL,
                (Inet("a", 26379), Inet("b", 1), Inet("::1", 2)),
                login=Login("u", "p"),
                database=4,
                master="mymaster",
                sentinel_login=Login("s", "x&y"),
            ),
        ),
        (
            "rediss+cluster://a:7000,b:7001",
            Url(Topology.CLUSTER, (Inet("a", 7000), Inet("b", 7001)), True),
        ),
    ],
)
def test_a_url_says_where_redis_is_and_who_we_are_to_it(text, url):
    assert parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it begins with none of"),
        ("http://hunter2", "it begins with none of"),
        ("rediss+unix:///hunter2", "it begins with none of"),
        ("redis:hunter2", "it begins with none of"),
        ("redis://hunter2@host", "stands user:password or :password"),
        ("redis://:hunter2:host", "a host is written"),
        ("redis://:hunt/er2@ho st", "a host is written"),
        ("redis://host:0", "a host is written"),
        ("redis://host:65536", "a host is written"),
        ("redis://a,b", "names several hosts"),
        ("redis://host/hunter2", "the database is a number"),
        ("redis://host?password=hunter2", r"behind the \? stands nothing"),
        ("redis://:hunter2?x@host", r"behind the \? stands nothing"),
        ("redis://:%ffhunter2@host", "no UTF-8"),
        ("redis+unix://host/hunter2", "a unix socket is written"),
        ("redis+unix:///hunter2/0", "such as redis\\+unix:///path\\?db=0"),
        ("redis+unix:///" + "a" * 107, "at most 107 bytes"),
        ("redis+unix:///a%00b", "a unix socket is written"),
        ("redis+unix:///a?database=1", "stands only db"),
        ("redis+sentinel://a,b", "what they call the master"),
        ("redis+sentinel://a,b/0", "such as /mymaster or /mymaster/0"),
        ("redis+sentinel://a/m?hunter2", "stands only sentinel_user and sentinel_password"),
        ("redis+cluster://a,b/0", "it has no databases"),
        ("redis+cluster://" + ",".join(["a"] * 65), "more than 64 hosts"),
    ],
)
def test_a_mistake_is_told_without_any_part_of_the_url(text, told):
    with pytest.raises(ValueError, match=told) as error:
        parse_url(text)
    assert "hunter2" not in str(error.value)


def test_a_url_as_text_or_in_a_traceback_has_no_password():
    url = parse_url("rediss+sentinel://u:hunter2@a,b/m?sentinel_password=hunter3")
    assert str(url) == "sentinel inet:a:26379, inet:b:26379 (m) over TLS"
    assert "hunter" not in repr(url)
