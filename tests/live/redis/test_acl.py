"""The users that are shipped in conf/redis may do what mxweir needs, and nothing else."""

import re
from functools import cache
from pathlib import Path

import pytest

from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import LabError
from mxweir_ops.lab.redis import USERS, Session
from mxweir_ops.lab.redis_topologies import Watched

TOP = Path(__file__).parents[3]
PLACES = ("core/mxweir/redis", "core/mxweir/ratelimit", "policyd/mxweir_policyd", "milter/mxweir_milter")

LOGIN = "mxweir:lab%20password@"


def allowed(file: str) -> set[str]:
    return set(re.findall(r"\+([a-z|-]+)", (USERS / file).read_text())) - {"switch-master"}


@cache
def sources() -> str:
    """All texts of ours that Redis is asked by."""
    places = [path for root in PLACES for path in (TOP / root).rglob("*") if path.suffix in (".py", ".lua")]
    return "".join(path.read_text() for path in places)


def called_by_scripts() -> set[str]:
    """Every command in every script that we have."""
    return {name.lower() for name in re.findall(r"\bcall\('([A-Z]+)'", sources())}


def test_every_command_of_the_scripts_is_allowed():
    assert called_by_scripts() > {"mget", "set"}
    assert called_by_scripts() <= allowed("users.acl")


def test_nothing_is_allowed_that_nothing_uses():
    words = {word.lower() for word in re.findall(r"[\"']([A-Z-]+)[\"']", sources())}
    for name in allowed("users.acl") | allowed("sentinel.acl"):
        assert name in called_by_scripts() or set(name.split("|")) <= words, name


def test_the_file_has_a_password_that_is_to_be_changed_and_no_other_user():
    for file in ("users.acl", "sentinel.acl"):
        (line,) = (USERS / file).read_text().splitlines()
        assert line.startswith("user mxweir on >CHANGE-ME ")


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "mxweir:a"),
        ("SET", "other", "1"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("SUBSCRIBE", "other"),
        ("PUBLISH", "other", "1"),
        ("EVAL", "return redis.call('DEL', 'other')", "0"),
        ("EVAL", "return 1", "1", "other"),
    ],
)
def test_the_user_may_do_nothing_else(redis, command):
    with Session(redis.unix) as session:
        session.ask("AUTH", "mxweir", "lab password")
        with pytest.raises(LabError, match=r"NOPERM|No permissions|can't"):
            session.ask(*command)


async def test_calls_scripts_and_channels_work_for_the_user(redis, connected):
    asker = await connected(redis.guarded_url + "?db=1")
    assert asker.names() == ["Redis connected"]
    assert await asker.ask("SET", "mxweir:a", "1", "PX", "60000", key="mxweir:a") == b"OK"
    times: list[int] = []
    asker.servers.subscribe("mxweir:access", lambda _: None, lambda: times.append(1))
    await asker.until(lambda: bool(times))
    assert redis.cli("ACL", "LOG") == []
    assert b"name=mxweir" in redis.cli("CLIENT", "LIST")


async def test_a_wrong_password_is_told_and_not_shown(redis, connected):
    asker = await connected(redis.url.replace("//", "//mxweir:hunter2@"))
    assert "refused: WRONGPASS" in asker.detail("Redis not available")
    assert "hunter2" not in repr(asker.told.events)
    assert "hunter2" not in repr(asker.servers) + repr(vars(asker.servers))
    assert (await asker.eval()).kind == "unavailable"


async def test_a_password_without_a_user_is_that_of_everybody(redis, connected):
    redis.cli("CONFIG", "SET", "requirepass", "secret")
    asker = await connected(redis.url)
    assert "refused: NOAUTH" in asker.detail("Redis not available")
    asker = await connected(redis.url.replace("//", "//:secret@"))
    assert await asker.ask("PING") == b"PONG"


async def test_sentinels_and_the_master_let_their_users_in(connected):
    with temporary_directory() as directory, Watched(directory) as watched:
        for sentinel in watched.sentinels:
            sentinel.cli("ACL", "SETUSER", "default", "off")
        address = watched.url.replace("//", f"//{LOGIN}")
        asker = await connected(f"{address}?sentinel_user=mxweir&sentinel_password=lab%20password")
        assert await asker.ask("SET", "mxweir:a", "1", key="mxweir:a") == b"OK"
        assert set(asker.names()) == {"Redis connected"}
